package main

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// startTelemetry sets up OpenTelemetry from the usual OTEL_ variables. Go propagates no context
// until a propagator is set.
func startTelemetry(ctx context.Context) (shutdown func(context.Context) error, err error) {
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, err
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	return provider.Shutdown, nil
}

func inject(ctx context.Context, carrier propagation.TextMapCarrier) {
	otel.GetTextMapPropagator().Inject(ctx, carrier)
}

func extract(carrier propagation.TextMapCarrier) context.Context {
	return otel.GetTextMapPropagator().Extract(context.Background(), carrier)
}

func tracer() trace.Tracer { return otel.Tracer("interop") }

// placeOrder is the request on whose behalf a message is sent; its baggage is propagated.
func placeOrder(ctx context.Context, send func(context.Context) error) error {
	tenant, err := baggage.NewMember("tenant", "blue")
	if err != nil {
		return err
	}
	bag, err := baggage.New(tenant)
	if err != nil {
		return err
	}
	ctx, span := tracer().Start(baggage.ContextWithBaggage(ctx, bag), "place order")
	defer span.End()
	return send(ctx)
}

// startSend starts the span whose context the message has to carry: inject the returned context,
// not the argument.
func startSend(ctx context.Context, system, topic string) (context.Context, trace.Span) {
	return tracer().Start(ctx, "send "+topic,
		trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(messaging(system, "send", topic)...))
}

// startProcess starts the span of a message whose context is `sent`: a child of the sending span,
// with a link to it for tools that follow links. It lasts until the message is settled.
func startProcess(sent context.Context, system, topic string) (context.Context, trace.Span) {
	return tracer().Start(sent, "process "+topic,
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithLinks(trace.LinkFromContext(sent)),
		trace.WithAttributes(messaging(system, "process", topic)...))
}

func messaging(system, operation, topic string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", system),
		attribute.String("messaging.operation.name", operation),
		attribute.String("messaging.operation.type", operation),
		attribute.String("messaging.destination.name", topic),
	}
}

// reserveStock is the service's work for an order.
func reserveStock(ctx context.Context) {
	tenant := baggage.FromContext(ctx).Member("tenant").Value()
	_, span := tracer().Start(ctx, "reserve stock", trace.WithAttributes(attribute.String("tenant", tenant)))
	span.End()
}
