// Command interop sends or receives one message as Go services do, with one sub-command for each
// client library.
//
//	interop LIBRARY produce|consume --url URL --topic TOPIC [--group GROUP]
//
// Spans are exported over OTLP to OTEL_EXPORTER_OTLP_ENDPOINT. A consumer prints `ready` once it is
// subscribed, and then, as one line of JSON, the message and its headers with their types in the
// library.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// A place is the origin or destination of a message.
type place struct{ url, topic, group string }

type library struct {
	produce func(ctx context.Context, to place, payload string) error
	consume func(ctx context.Context, from place) error
}

var libraries = map[string]library{
	"sarama":            {saramaProduce(withCarrier), saramaConsume},
	"sarama-by-value":   {produce: saramaProduce(withCarrierByValue)},
	"otelsarama":        {otelsaramaProduce(withContext), otelsaramaConsume},
	"otelsarama-bare":   {produce: otelsaramaProduce(withoutContext)},
	"otelsarama-copied": {produce: otelsaramaProduce(withOldHeaders)},
	"amqp091":           {amqpProduce(withStrings), amqpConsume},
	"amqp091-bytes":     {produce: amqpProduce(withBytes)},
	"nats":              {jetStreamProduce(exactCarrier), jetStreamConsume(exactCarrier)},
	"nats-http":         {jetStreamProduce(httpCarrier), jetStreamConsume(httpCarrier)},
	"nats-core":         {coreProduce(exactCarrier), coreConsume(exactCarrier)},
	"nats-core-http":    {coreProduce(httpCarrier), coreConsume(httpCarrier)},
	"go-redis":          {redisProduce, redisConsume},
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) < 3 {
		return fmt.Errorf("usage: interop LIBRARY produce|consume --url URL --topic TOPIC [--group GROUP]")
	}
	var at place
	flags := flag.NewFlagSet("interop", flag.ExitOnError)
	flags.StringVar(&at.url, "url", "", "the broker")
	flags.StringVar(&at.topic, "topic", "", "the topic")
	flags.StringVar(&at.group, "group", "", "the consumer group")
	if err := flags.Parse(os.Args[3:]); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	shutdown, err := startTelemetry(ctx)
	if err != nil {
		return err
	}
	library := libraries[os.Args[1]]
	switch verb := os.Args[2]; {
	case verb == "produce" && library.produce != nil:
		err = placeOrder(ctx, func(ctx context.Context) error { return library.produce(ctx, at, "order 42") })
	case verb == "consume" && library.consume != nil:
		err = library.consume(ctx, at)
	default:
		err = fmt.Errorf("%s cannot %s", os.Args[1], verb)
	}
	// Without this, the program would lose its last spans when it exits.
	if flushed := shutdown(context.Background()); err == nil {
		err = flushed
	}
	return err
}

// A header is a name, the type of its value in Go, and the value.
type header [3]string

func ready() { fmt.Println("ready") }

func report(payload string, headers []header) {
	line, _ := json.Marshal(map[string]any{"payload": payload, "headers": headers})
	fmt.Println(string(line))
}
