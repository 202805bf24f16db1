import io.opentelemetry.api.OpenTelemetry;
import io.opentelemetry.api.baggage.Baggage;
import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanBuilder;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Context;
import io.opentelemetry.context.Scope;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Sends or receives one message with Kafka's own client.
 *
 * <pre>Interop kafka-clients produce|consume --url URL --topic TOPIC [--group GROUP]</pre>
 *
 * Spans are exported over OTLP to OTEL_EXPORTER_OTLP_ENDPOINT. A consumer prints `ready` once it has its
 * partitions, and then, as one line of JSON, the message and its headers with their types in the
 * library.
 */
public final class Interop {
    private static final KafkaHeaders HEADERS = new KafkaHeaders();

    private final OpenTelemetry telemetry;
    private final Tracer tracer;
    private final Map<String, String> at;

    private Interop(OpenTelemetry telemetry, Map<String, String> at) {
        this.telemetry = telemetry;
        this.tracer = telemetry.getTracer("interop");
        this.at = at;
    }

    public static void main(String[] arguments) {
        Map<String, String> at = new HashMap<>();
        for (int i = 2; i + 1 < arguments.length; i += 2) {
            at.put(arguments[i], arguments[i + 1]);
        }
        // Configured by the usual OTEL_ variables. Closing it sends the last spans.
        var configured = AutoConfiguredOpenTelemetrySdk.builder().disableShutdownHook().build();
        try (OpenTelemetrySdk sdk = configured.getOpenTelemetrySdk()) {
            Interop interop = new Interop(sdk, at);
            switch (arguments[1]) {
                case "produce" -> interop.placeOrder();
                case "consume" -> interop.consume();
                default -> throw new IllegalArgumentException(arguments[1]);
            }
        }
    }

    /** The request on whose behalf a message is sent; its baggage is propagated. */
    private void placeOrder() {
        Span span = tracer.spanBuilder("place order").startSpan();
        Context context = Context.current().with(span).with(Baggage.builder().put("tenant", "blue").build());
        try (Scope scope = context.makeCurrent()) {
            produce("order 42");
        } finally {
            span.end();
        }
    }

    private void produce(String payload) {
        Map<String, Object> config = Map.of("bootstrap.servers", at.get("--url"));
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            var message = new ProducerRecord<String, String>(at.get("--topic"), payload);
            Span span = messaging("send", SpanKind.PRODUCER).startSpan();
            try (Scope scope = span.makeCurrent()) {
                telemetry.getPropagators().getTextMapPropagator().inject(Context.current(), message.headers(), HEADERS);
                producer.send(message).get();
            } catch (Exception failure) {
                throw new IllegalStateException(failure);
            } finally {
                span.end();
            }
        }
    }

    private void consume() {
        Map<String, Object> config = Map.of(
                "bootstrap.servers", at.get("--url"),
                "group.id", at.get("--group"),
                "auto.offset.reset", "earliest",
                "enable.auto.commit", "false");
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(at.get("--topic")), new SayReady());
            for (var messages = consumer.poll(Duration.ZERO); ; messages = consumer.poll(Duration.ofSeconds(1))) {
                for (var message : messages) {
                    process(message, consumer::commitSync);
                    return;
                }
            }
        }
    }

    /**
     * Processes a message in a span that is a child of the sending span and has a link to it, for tools
     * that follow links. The span lasts until the message is settled.
     */
    private void process(ConsumerRecord<String, String> message, Runnable settle) {
        // From an empty context: a message without one must not seem to come from whatever is going on here.
        Context sent = telemetry.getPropagators().getTextMapPropagator().extract(Context.root(), message.headers(), HEADERS);
        Span span = messaging("process", SpanKind.CONSUMER)
                .setParent(sent)
                .addLink(Span.fromContext(sent).getSpanContext())
                .startSpan();
        try (Scope scope = sent.with(span).makeCurrent()) {
            reserveStock();
            settle.run();
        } finally {
            span.end();
        }
        report(message);
    }

    private SpanBuilder messaging(String operation, SpanKind kind) {
        return tracer.spanBuilder(operation + " " + at.get("--topic"))
                .setSpanKind(kind)
                .setAttribute("messaging.system", "kafka")
                .setAttribute("messaging.operation.name", operation)
                .setAttribute("messaging.operation.type", operation)
                .setAttribute("messaging.destination.name", at.get("--topic"));
    }

    /** The service's work for an order. */
    private void reserveStock() {
        tracer.spanBuilder("reserve stock").setAttribute("tenant", Baggage.current().getEntryValue("tenant")).startSpan().end();
    }

    private static void report(ConsumerRecord<String, String> message) {
        List<String> headers = new ArrayList<>();
        for (Header header : message.headers()) {
            String type = header.value() == null ? "null" : header.value().getClass().getSimpleName();
            headers.add("[" + quoted(header.key()) + "," + quoted(type) + "," + quoted(text(header)) + "]");
        }
        System.out.println("{\"payload\":" + quoted(message.value()) + ",\"headers\":[" + String.join(",", headers) + "]}");
    }

    private static String text(Header header) {
        return header.value() == null ? "" : new String(header.value(), StandardCharsets.UTF_8);
    }

    private static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }

    private static final class SayReady implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            System.out.println("ready");
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {}
    }
}
