use std::sync::Arc;

use proptest::prelude::*;

use super::super::inspect::Inspector;
use super::super::returned::{Returned, written};
use super::*;

const OUR_CHANNEL: u16 = 7;

fn filter() -> (FrameFilter, Arc<Returned>) {
    let returned = Arc::new(Returned::default());
    returned.watch(OUR_CHANNEL);
    (FrameFilter::new(Inspector::new(Arc::clone(&returned), Arc::default())), returned)
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = (payload.len() as u32).to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &size, payload, &[END]].concat()
}

fn deliver(channel: u16, routing_key: &[u8]) -> Vec<u8> {
    let payload =
        [&[0, 60, 0, 60][..], b"\x03tag", &[0; 9], b"\x02ex", &[routing_key.len() as u8], routing_key].concat();
    frame(METHOD, channel, &payload)
}

fn content_header(channel: u16, body_size: u64, table: &[u8]) -> Vec<u8> {
    let table_size = (table.len() as u32).to_be_bytes();
    let payload = [&[0, 60, 0, 0][..], &body_size.to_be_bytes(), &[0x20, 0], &table_size, table].concat();
    frame(HEADER, channel, &payload)
}

fn wrapped(channel: u16, body_size: u64, table: &[u8]) -> Vec<u8> {
    let raw = (table.len() as u32).to_be_bytes();
    content_header(channel, body_size, &[&[0, b'x'][..], &raw, table].concat())
}

fn returned_message(number: i64, body: usize) -> Vec<Vec<u8>> {
    let number = written(number);
    let table = [&b"\x0epublish-number"[..], b"S\0\0\0\x10", number.as_bytes()].concat();
    let mut frames = vec![
        frame(METHOD, OUR_CHANNEL, b"\0\x3c\0\x32\x01\x38\x08NO_ROUTE\x02ex\0"),
        content_header(OUR_CHANNEL, body as u64, &table),
    ];
    frames.extend((body > 0).then(|| frame(BODY, OUR_CHANNEL, &vec![9; body])));
    frames
}

/// Reads `bytes` in pieces of `read` bytes and takes them in pieces of `take` bytes.
fn run(filter: &mut FrameFilter, bytes: &[u8], read: usize, take: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut piece = vec![0; take];
    for chunk in bytes.chunks(read) {
        filter.room(read)[..chunk.len()].copy_from_slice(chunk);
        filter.filled(chunk.len());
        loop {
            match filter.take(&mut piece)? {
                0 => break,
                taken => out.extend_from_slice(&piece[..taken]),
            }
        }
    }
    Ok(out)
}

fn pass(bytes: &[u8]) -> Vec<u8> {
    run(&mut filter().0, bytes, 4096, 4096).unwrap()
}

#[test]
fn what_is_harmless_passes_as_it_is() {
    let stream = [
        frame(METHOD, 1, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]),
        deliver(1, b"key"),
        frame(BODY, 1, b"\xff\xfe"),
        frame(HEARTBEAT, 0, b""),
        frame(METHOD, 1, b"\0"),
        b"AMQP\0\0\x09\x01".to_vec(),
    ]
    .concat();
    assert_eq!(pass(&stream), stream);
}

#[test]
fn header_tables_are_wrapped() {
    let stream = [deliver(1, b""), content_header(1, 2, b"\x01\xffV"), frame(BODY, 1, b"ok")].concat();
    let expected = [deliver(1, b""), wrapped(1, 2, b"\x01\xffV"), frame(BODY, 1, b"ok")].concat();
    assert_eq!(pass(&stream), expected);
}

#[test]
fn routing_keys_are_made_readable() {
    assert_eq!(pass(&deliver(1, b"a\xffb")), deliver(1, b"a?b"));
}

#[test]
fn returned_messages_are_noted_and_taken_out() {
    let other = [deliver(1, b""), content_header(1, 2, b""), frame(BODY, 1, b"ok")];
    let ack = frame(METHOD, OUR_CHANNEL, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    // Frames of another channel may come between those of a returned message.
    let [method, header, body] = returned_message(5, 3).try_into().unwrap();
    let [deliver, deliver_header, deliver_body] = other;
    let stream =
        [method, deliver.clone(), header, deliver_header, body, deliver_body.clone(), returned_message(6, 0).concat()]
            .concat();
    let (mut filter, returned) = filter();
    let out = run(&mut filter, &[stream, ack.clone()].concat(), 4096, 4096).unwrap();
    assert_eq!(out, [deliver, wrapped(1, 2, b""), deliver_body, ack].concat());
    assert!(returned.take(5) && returned.take(6));
    assert!(!returned.take(5), "noted once");
}

#[test]
fn a_frame_over_the_agreed_size_shrinks_below_it() {
    let tune = frame(METHOD, 0, &[0, 10, 0, 30, 0, 0, 0, 0, 0x10, 0, 0, 0]);
    let table = [&b"\x03big"[..], b"S\0\0\x20\0", &[b'.'; 0x2000], b"\x05smallt\x01"].concat();
    let out = pass(&[tune.clone(), content_header(1, 0, &table)].concat());
    let header = &out[tune.len()..];
    assert!(header.len() <= 0x1000, "{}", header.len());
    assert!(header.windows(8).any(|part| part == b"\x05smallt\x01"));
}

#[test]
fn a_header_beyond_all_bounds_is_given_up_and_skipped() {
    let table = [&b"\x03big"[..], b"x", &(2_u32 << 20).to_be_bytes(), &vec![0; 2 << 20]].concat();
    let stream = [content_header(1, 2, &table), frame(BODY, 1, b"ok")].concat();
    let (mut filter, _) = filter();
    let out = run(&mut filter, &stream, 65_536, 4096).unwrap();
    assert_eq!(out, [wrapped(1, 2, b"?"), frame(BODY, 1, b"ok")].concat());
    assert!(filter.input.len() <= 2 * 65_536, "{}", filter.input.len());
}

#[test]
fn frames_before_what_is_not_the_protocol_are_passed_on() {
    let ack = frame(METHOD, 1, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let bytes = [&ack[..], b"HTTP/1.1 400"].concat();
    let (mut filter, _) = filter();
    filter.room(bytes.len()).copy_from_slice(&bytes);
    filter.filled(bytes.len());
    let mut piece = [0; 4096];
    assert_eq!(filter.take(&mut piece).unwrap(), ack.len());
    assert_eq!(piece[..ack.len()], ack);
    assert_eq!(filter.take(&mut piece).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn what_is_not_the_protocol_is_an_error() {
    for stream in [&b"HTTP/1.1 400 Bad Request"[..], &frame(HEADER, 1, b"\0\x3c"), &[METHOD, 0, 0, 0xff, 0, 0, 0]] {
        assert!(run(&mut filter().0, stream, 4096, 4096).is_err(), "{stream:?}");
    }
}

proptest! {
    #[test]
    fn pieces_do_not_matter(
        tables in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), 0_usize..30), 1..8),
        read in 1_usize..50,
        take in 1_usize..50,
    ) {
        let mut stream = Vec::new();
        for (table, body) in &tables {
            stream.extend(deliver(1, table));
            stream.extend(content_header(1, *body as u64, table));
            stream.extend(frame(BODY, 1, &vec![1; *body]));
            stream.extend(returned_message(3, *body).concat());
        }
        let whole = pass(&stream);
        let in_pieces = run(&mut filter().0, &stream, read, take).unwrap();
        prop_assert_eq!(whole, in_pieces);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0_u8..9) {
        let _ = run(&mut filter().0, &bytes, 7, 5);
        let _ = run(&mut filter().0, &frame(kind, 1, &bytes), 7, 5);
    }
}
