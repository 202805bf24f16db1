package main

import (
	"context"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/dnwe/otelsarama"
)

// otelsaramaProduce sends through the instrumentation. It makes the send span itself, but sarama's producers take no context: it takes
// the parent of the span from the headers of the message, which `prepare` may have put there.
func otelsaramaProduce(prepare func(context.Context, *sarama.ProducerMessage)) func(context.Context, place, string) error {
	return func(ctx context.Context, to place, payload string) error {
		config := saramaConfig()
		producer, err := sarama.NewSyncProducer(strings.Split(to.url, ","), config)
		if err != nil {
			return err
		}
		producer = otelsarama.WrapSyncProducer(config, producer)
		defer producer.Close()

		message := &sarama.ProducerMessage{Topic: to.topic, Value: sarama.StringEncoder(payload)}
		prepare(ctx, message)
		_, _, err = producer.SendMessage(message)
		return err
	}
}

func withContext(ctx context.Context, message *sarama.ProducerMessage) {
	inject(ctx, otelsarama.NewProducerMessageCarrier(message))
}

// withoutContext is the mistake of who expects the instrumentation to know the caller.
func withoutContext(context.Context, *sarama.ProducerMessage) {}

// withOldHeaders is the mistake of who sends on what was received, headers and all.
func withOldHeaders(_ context.Context, message *sarama.ProducerMessage) {
	ctx, span := tracer().Start(context.Background(), "earlier request")
	defer span.End()
	inject(ctx, otelsarama.NewProducerMessageCarrier(message))
}

// otelsaramaConsume receives through the instrumentation. It makes a span, ends it before the handler runs, and writes its context into
// the headers of the message, from where the handler has to take it.
func otelsaramaConsume(ctx context.Context, from place) error {
	return saramaConsumeWith(ctx, from, otelsarama.WrapConsumerGroupHandler(saramaHandler(func(message *sarama.ConsumerMessage) {
		// Work takes time, and more of it than the instrumentation takes to end its span on a busy machine.
		time.Sleep(200 * time.Millisecond)
		reserveStock(extract(otelsarama.NewConsumerMessageCarrier(message)))
	})))
}
