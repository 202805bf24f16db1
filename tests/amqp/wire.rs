//! A publisher that writes its frames by hand, and so can send frames that no client would.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use traced_broker::BrokerUrl;

use crate::driving::server;

/// Property flags.
pub(crate) const CONTENT_TYPE: u16 = 1 << 15;
pub(crate) const HEADERS: u16 = 1 << 13;
pub(crate) const CORRELATION_ID: u16 = 1 << 10;
pub(crate) const MESSAGE_ID: u16 = 1 << 7;
pub(crate) const TIMESTAMP: u16 = 1 << 6;

/// The broker's largest frame, which is also the adapter's.
pub(crate) const FRAME_MAX: usize = 131_072;
/// The size of a content header frame with only a table, without the table's entries.
pub(crate) const AROUND_TABLE: usize = 8 + 14 + 4;

const CHANNEL: u16 = 1;

pub(crate) struct Wire {
    socket: TcpStream,
}

impl Wire {
    /// Connects as guest, with a channel in confirm mode.
    pub(crate) async fn connect() -> Self {
        let hosts = BrokerUrl::parse(server()).unwrap().hosts(5672);
        let socket = TcpStream::connect(hosts[0].clone()).await.unwrap();
        let mut wire = Self { socket };
        wire.socket.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        wire.expect(10, 10).await;
        let start_ok = [&[0, 0, 0, 0, 5][..], b"PLAIN", b"\0\0\0\x0c\0guest\0guest", b"\x05en_US"].concat();
        wire.method(0, 10, 11, &start_ok).await;
        wire.expect(10, 30).await;
        wire.method(0, 10, 31, &[&[7, 0][..], &(FRAME_MAX as u32).to_be_bytes(), &[0, 0]].concat()).await;
        wire.method(0, 10, 40, b"\x01/\0\0").await;
        wire.expect(10, 41).await;
        wire.method(CHANNEL, 20, 10, b"\0").await;
        wire.expect(20, 11).await;
        wire.method(CHANNEL, 85, 10, b"\0").await;
        wire.expect(85, 11).await;
        wire
    }

    /// Publishes with these exact property bytes, and waits for the confirm.
    pub(crate) async fn publish(
        &mut self,
        exchange: &str,
        routing_key: &[u8],
        flags: u16,
        properties: &[u8],
        body: &[u8],
    ) {
        let arguments = [&[0, 0][..], &short(exchange.as_bytes()), &short(routing_key), &[0]].concat();
        self.method(CHANNEL, 60, 40, &arguments).await;
        let size = (body.len() as u64).to_be_bytes();
        let header = [&60_u16.to_be_bytes()[..], &[0, 0], &size, &flags.to_be_bytes(), properties].concat();
        self.frame(2, CHANNEL, &header).await;
        if !body.is_empty() {
            self.frame(3, CHANNEL, body).await;
        }
        self.expect(60, 80).await;
    }

    /// Publishes with only this header table.
    pub(crate) async fn publish_table(&mut self, exchange: &str, entries: &[u8], body: &[u8]) {
        self.publish(exchange, b"", HEADERS, &long(entries), body).await;
    }

    async fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        self.frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat()).await;
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let size = (payload.len() as u32).to_be_bytes();
        let frame = [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xCE]].concat();
        self.socket.write_all(&frame).await.unwrap();
    }

    async fn expect(&mut self, class: u16, method: u16) {
        let mut start = [0; 7];
        self.socket.read_exact(&mut start).await.unwrap();
        let size = u32::from_be_bytes([start[3], start[4], start[5], start[6]]) as usize;
        let mut rest = vec![0; size + 1];
        self.socket.read_exact(&mut rest).await.unwrap();
        let wanted = [class.to_be_bytes(), method.to_be_bytes()].concat();
        assert_eq!(rest[..4], wanted, "{}", String::from_utf8_lossy(&rest));
    }
}

/// Encodes a string of at most 255 bytes.
pub(crate) fn short(text: &[u8]) -> Vec<u8> {
    [&[text.len() as u8][..], text].concat()
}

/// Encodes bytes with their length in front.
pub(crate) fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// Encodes a table entry; the value includes its type.
pub(crate) fn entry(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [short(name.as_ref()), value.as_ref().to_vec()].concat()
}

/// Encodes a long string with its type.
pub(crate) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    [b"S".to_vec(), long(text.as_ref())].concat()
}
