package main

import (
	"context"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/dnwe/otelsarama"
)

// otelsaramaProduce sends through the instrumentation. It makes the send span itself, but sarama's producers take no context, so
// that it knows its parent only if the caller's context is in the message already: that is what `injected` is about.
func otelsaramaProduce(injected bool) func(context.Context, place, string) error {
	return func(ctx context.Context, to place, payload string) error {
		config := saramaConfig()
		producer, err := sarama.NewSyncProducer(strings.Split(to.url, ","), config)
		if err != nil {
			return err
		}
		producer = otelsarama.WrapSyncProducer(config, producer)
		defer producer.Close()

		message := &sarama.ProducerMessage{Topic: to.topic, Value: sarama.StringEncoder(payload)}
		if injected {
			inject(ctx, otelsarama.NewProducerMessageCarrier(message))
		}
		_, _, err = producer.SendMessage(message)
		return err
	}
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
