package main

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/propagation"
)

func redisProduce(ctx context.Context, to place, payload string) error {
	client, err := redisClient(to)
	if err != nil {
		return err
	}
	defer client.Close()

	ctx, span := startSend(ctx, "redis", to.topic)
	defer span.End()
	// The payload and every header are a field each, under their own names.
	fields := map[string]string{"payload": payload}
	inject(ctx, propagation.MapCarrier(fields))
	return client.XAdd(ctx, &redis.XAddArgs{Stream: to.topic, Values: fields}).Err()
}

func redisConsume(ctx context.Context, from place) error {
	client, err := redisClient(from)
	if err != nil {
		return err
	}
	defer client.Close()
	ready()
	streams, err := client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: from.group, Consumer: "interop", Streams: []string{from.topic, ">"}, Count: 1, Block: 0,
	}).Result()
	if err != nil {
		return err
	}
	entry := streams[0].Messages[0]

	fields := propagation.MapCarrier{}
	var headers []header
	for name, value := range entry.Values {
		fields[name] = fmt.Sprint(value)
		headers = append(headers, header{name, fmt.Sprintf("%T", value), fields[name]})
	}
	ctx, span := startProcess(extract(fields), "redis", from.topic)
	defer span.End()
	reserveStock(ctx)
	report(fields["payload"], headers)
	return client.XAck(ctx, from.topic, from.group, entry.ID).Err()
}

func redisClient(at place) (*redis.Client, error) {
	options, err := redis.ParseURL(at.url)
	if err != nil {
		return nil, err
	}
	return redis.NewClient(options), nil
}
