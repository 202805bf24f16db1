package main

import (
	"context"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/dnwe/otelsarama"
)

// otelsaramaProduce sends through the instrumentation, which creates the send span itself. Because
// sarama's producers accept no context, it takes the span's parent from the message's headers,
// where `prepare` may have put it.
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

// withoutContext is the mistake of expecting the instrumentation to know the caller's context.
func withoutContext(context.Context, *sarama.ProducerMessage) {}

// withOldHeaders is the mistake of sending a received message on with all its headers.
func withOldHeaders(_ context.Context, message *sarama.ProducerMessage) {
	ctx, span := tracer().Start(context.Background(), "earlier request")
	defer span.End()
	inject(ctx, otelsarama.NewProducerMessageCarrier(message))
}

// otelsaramaConsume receives through the instrumentation, which creates a span, ends it before the
// handler runs, and writes its context into the message's headers. The handler has to extract it
// there.
func otelsaramaConsume(ctx context.Context, from place) error {
	return saramaConsumeWith(ctx, from, otelsarama.WrapConsumerGroupHandler(saramaHandler(func(message *sarama.ConsumerMessage) {
		// Work takes longer than the instrumentation needs to end its span on a busy machine.
		time.Sleep(200 * time.Millisecond)
		reserveStock(extract(otelsarama.NewConsumerMessageCarrier(message)))
	})))
}
