//! Functions that rdkafka's safe interface lacks. It panics on headers whose names are not UTF-8
//! and on metadata of commits that is not. It does not tell if a failed message may have reached
//! the broker, nor how a commit ended for which the caller does not wait. This is the only unsafe
//! code of the crate.
#![expect(unsafe_code, reason = "rdkafka offers no safe way to these; each block states why it is sound")]

use std::ffi::CStr;
use std::marker::PhantomData;
use std::{ptr, slice};

use rdkafka::TopicPartitionList;
use rdkafka::bindings::{
    rd_kafka_commit_queue, rd_kafka_header_get_all, rd_kafka_headers_t, rd_kafka_message_headers,
    rd_kafka_message_status, rd_kafka_msg_status_t, rd_kafka_queue_destroy, rd_kafka_queue_get_consumer,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;

/// The headers of a message as librdkafka parsed them. Names are C strings, so a name with a NUL
/// byte seems to end there.
pub(crate) struct NativeHeaders<'m> {
    headers: *const rd_kafka_headers_t,
    message: PhantomData<&'m BorrowedMessage<'m>>,
}

/// The error of headers that could not be parsed at all.
#[derive(Debug)]
pub(crate) struct Malformed;

impl<'m> NativeHeaders<'m> {
    /// Returns the headers of `message`, or `None` if it has none. Borrows it mutably, because
    /// reading parses them in place.
    pub(crate) fn of(message: &'m mut BorrowedMessage<'_>) -> Result<Option<Self>, Malformed> {
        let mut headers = ptr::null_mut();
        // SAFETY: `ptr()` is the native message, which lives as long as `message`. The exclusive
        // borrow proves that no other code uses it meanwhile. `headers` may be written to.
        let code = unsafe { rd_kafka_message_headers(message.ptr(), &raw mut headers) };
        match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(Some(Self { headers, message: PhantomData })),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__NOENT => Ok(None),
            _ => Err(Malformed),
        }
    }

    /// Returns name and value of each header, in order; a null value is `None`.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'m CStr, Option<&'m [u8]>)> {
        let headers = self.headers;
        let mut index = 0;
        std::iter::from_fn(move || {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: `headers` came from a call that succeeded and belongs to the message, which
            // is borrowed for 'm. An index beyond the end is answered by an error code. The other
            // three may be written to.
            let code = unsafe { rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size) };
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            index += 1;
            // SAFETY: after success `name` is a string that ends with NUL, and belongs to the
            // message.
            let name = unsafe { CStr::from_ptr(name) };
            // SAFETY: after success a `value` that is not null has `size` bytes, and belongs to the
            // message.
            let value = (!value.is_null()).then(|| unsafe { slice::from_raw_parts(value.cast(), size) });
            Some((name, value))
        })
    }
}

/// Returns `true` if a message whose delivery failed may be stored at the broker nevertheless.
pub(crate) fn may_be_stored(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: `ptr()` is the native message, which lives as long as `message`; the call only reads.
    let status = unsafe { rd_kafka_message_status(message.ptr()) };
    status != rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

/// Returns partition, offset and metadata of each element of the list. Other clients may commit any
/// bytes as metadata.
pub(crate) fn committed(list: &TopicPartitionList) -> Vec<(i32, i64, &[u8])> {
    let count = list.count();
    // SAFETY: `ptr()` is the native list, which lives as long as `list`.
    let elements = unsafe { (*list.ptr()).elems };
    if elements.is_null() {
        return Vec::new();
    }
    // SAFETY: the array has `count` elements, which belong to the list; it is not changed while it
    // is borrowed.
    let elements = unsafe { slice::from_raw_parts(elements, count) };
    let element = |element: &rdkafka::types::RDKafkaTopicPartition| {
        let (metadata, size) = (element.metadata, element.metadata_size);
        // SAFETY: metadata that is not null has `size` bytes, and belongs to the element.
        let bytes = if metadata.is_null() { &[] } else { unsafe { slice::from_raw_parts(metadata.cast(), size) } };
        (element.partition, element.offset, bytes)
    };
    elements.iter().map(element).collect()
}

/// Sends the positions of the list to the broker and does not wait. The result is passed to the
/// consumer's [`commit_callback`](ConsumerContext::commit_callback), by a later poll. rdkafka's own
/// asynchronous commit tells none.
pub(crate) fn commit_later(
    consumer: &BaseConsumer<impl ConsumerContext>,
    list: &TopicPartitionList,
) -> KafkaResult<()> {
    let client = consumer.client().native_ptr();
    // SAFETY: `client` lives as long as `consumer`.
    let queue = unsafe { rd_kafka_queue_get_consumer(client) };
    if queue.is_null() {
        return Err(KafkaError::ConsumerCommit(rdkafka::error::RDKafkaErrorCode::UnknownGroup));
    }
    // SAFETY: all three are alive; the list is copied. Without a callback the result is put into
    // the queue, from which `consumer` takes it as an event.
    let code = unsafe { rd_kafka_commit_queue(client, list.ptr(), queue, None, ptr::null_mut()) };
    // SAFETY: gives back the reference that `rd_kafka_queue_get_consumer` returned.
    unsafe { rd_kafka_queue_destroy(queue) };
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(KafkaError::ConsumerCommit(code.into())),
    }
}
