//! The amqp adapter.
