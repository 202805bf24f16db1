//! Two functions that rdkafka's safe interface lacks. One reads headers whose names are not UTF-8,
//! on which that interface panics. The other tells if a failed message may have reached the broker.
//! This is the only unsafe code of the crate.
#![expect(unsafe_code, reason = "rdkafka offers no safe way to either; each block states why it is sound")]

use std::ffi::CStr;
use std::marker::PhantomData;
use std::{ptr, slice};

use rdkafka::bindings::{
    rd_kafka_header_get_all, rd_kafka_headers_t, rd_kafka_message_headers, rd_kafka_message_status,
    rd_kafka_msg_status_t,
};
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
