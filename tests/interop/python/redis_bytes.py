"""redis-py with its default settings."""

import redis

from redis_streams import produce, receive

__all__ = ["consume", "produce"]


def consume(at):
    receive(at, redis.Redis.from_url(at.url))
