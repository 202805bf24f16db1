import io.opentelemetry.context.propagation.TextMapGetter;
import io.opentelemetry.context.propagation.TextMapSetter;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;

/** Writes a context into the headers of a record, and reads it from there. */
final class KafkaHeaders implements TextMapSetter<Headers>, TextMapGetter<Headers> {
    @Override
    public void set(Headers headers, String key, String value) {
        // `add` alone would leave two of them when a record is sent on.
        headers.remove(key).add(key, value.getBytes(StandardCharsets.UTF_8));
    }

    @Override
    public String get(Headers headers, String key) {
        Header header = headers.lastHeader(key);
        return header == null || header.value() == null ? null : new String(header.value(), StandardCharsets.UTF_8);
    }
}
