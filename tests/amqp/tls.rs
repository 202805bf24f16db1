//! TLS: certificates of the server and of the client, and what is said when they do not fit.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::task::spawn_blocking;
use tokio::time::{Duration, sleep};
use traced_broker::adapters::amqp::Amqp;
use traced_broker::driver::{Driver, DriverExt, Plaintext, Source};
use traced_broker::{Error, ErrorKind, Tls, Topic, connect};

use crate::connecting::told;
use crate::driving::*;
use crate::faults::with;
use crate::support::certificates::{Certificates, HOST, OTHER_NAME, Of, check_refusal};
use crate::support::orders::check_orders_on;
use crate::support::{Kind, Server};

/// A server with a port for TLS at which clients need a certificate, and another port without TLS.
struct Secured {
    server: Arc<Server>,
    port: u16,
    certificates: Certificates,
    /// The files that the server and the client are told of. Their contents are replaced.
    files: tempfile::TempDir,
}

impl Secured {
    async fn start() -> Self {
        let (certificates, files) = (Certificates::make(), tempfile::tempdir().unwrap());
        let kind = Kind::RabbitMq.of_generation();
        let port = Server::free_port(kind);
        let properties = [
            format!("listeners.ssl.1 = {HOST}:{port}"),
            format!("ssl_options.cacertfile = {}", certificates.authorities().display()),
            format!("ssl_options.certfile = {}", files.path().join("server.pem").display()),
            format!("ssl_options.keyfile = {}", files.path().join("server.key").display()),
            "ssl_options.verify = verify_peer".to_owned(),
            "ssl_options.fail_if_no_peer_cert = true".to_owned(),
        ];
        let environment = vec![("RABBITMQ_PROPERTIES", properties.join("\n"))];
        replace(&certificates, Of::Server, files.path(), "server");
        let start = move || Arc::new(Server::start_at(kind, Server::free_port(kind), environment));
        Self { server: spawn_blocking(start).await.unwrap(), port, certificates, files }
    }

    /// Gives the server this certificate.
    async fn present(&self, of: Of) {
        replace(&self.certificates, of, self.files.path(), "server");
        with(&self.server, |server| drop(server.rabbitmqctl(&["eval", "ssl:clear_pem_cache()."]).unwrap())).await;
    }

    async fn connect(&self, options: &str) -> traced_broker::Result<Amqp> {
        connect_to(&format!("amqps://{HOST}:{}/?{options}", self.port)).await
    }

    async fn refused(&self, options: &str) -> Error {
        let error = self.connect(options).await.unwrap_err();
        assert!(error.to_string().contains(&format!("{HOST}:{}", self.port)), "{error}");
        assert!(!told(&error).contains("PRIVATE KEY"), "{}", told(&error));
        error
    }

    async fn close_connections(&self) {
        with(&self.server, |server| drop(server.rabbitmqctl(&["close_all_connections", "a test"]).unwrap())).await;
    }
}

/// Copies a certificate and its key to files of that name.
fn replace(certificates: &Certificates, of: Of, directory: &Path, name: &str) {
    fs::copy(certificates.certificate(of), directory.join(format!("{name}.pem"))).unwrap();
    fs::copy(certificates.key(of), directory.join(format!("{name}.key"))).unwrap();
}

async fn check_passes(amqp: &Amqp, topic: &Topic, source: &mut Source, text: &str) {
    confirmed(amqp.enqueue(topic, outbound(text.to_owned()))).await.unwrap();
    assert_eq!(next_text(source).await, text);
}

/// Waits until the driver has no connection for this reason, or has one.
async fn until_answer(amqp: &Amqp, expected: Option<ErrorKind>) {
    let begin = Instant::now();
    loop {
        let answer = amqp.ping().await.err().map(|error| error.kind());
        if answer == expected {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{answer:?} in place of {expected:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The example runs with only the URL changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_the_order_system() {
    let secured = Secured::start().await;
    let url = format!("amqps://{HOST}:{}/?{}", secured.port, secured.certificates.options(Of::Client));
    spawn_blocking(move || check_orders_on(&url)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_says_what_is_wrong() {
    let secured = Secured::start().await;
    let (certificates, good) = (&secured.certificates, secured.certificates.options(Of::Client));
    secured.connect(&good).await.unwrap().ping().await.unwrap();

    check_refusal(&secured.refused(&certificates.distrusting()).await, ErrorKind::Unauthenticated, "tls_ca");
    // The server's answer to these comes after the handshake, and ends its connection.
    for _ in 0..10 {
        check_refusal(&secured.refused(&certificates.anonymous()).await, ErrorKind::Unauthenticated, "tls_cert");
        let stranger = certificates.options(Of::Stranger);
        check_refusal(&secured.refused(&stranger).await, ErrorKind::Unauthenticated, "tls_cert");
    }

    secured.present(Of::Elsewhere).await;
    check_refusal(&secured.refused(&good).await, ErrorKind::Unauthenticated, "tls_server_name");
    let named = format!("{good}&tls_server_name={OTHER_NAME}");
    secured.connect(&named).await.unwrap().ping().await.unwrap();
    secured.present(Of::Expired).await;
    check_refusal(&secured.refused(&good).await, ErrorKind::Unauthenticated, "expired");

    let plain = connect_to(&format!("amqp://{HOST}:{}", secured.port)).await.unwrap_err();
    check_refusal(&plain, ErrorKind::Unavailable, "amqps://");
    let encrypted = connect_to(&format!("amqps://{HOST}:{}/?{good}", secured.server.port())).await.unwrap_err();
    check_refusal(&encrypted, ErrorKind::Unavailable, "does not speak TLS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_files_count_from_the_next_connection_on() {
    let secured = Secured::start().await;
    let (certificates, files) = (&secured.certificates, secured.files.path());
    let authorities = files.join("ca.pem");
    let trust = |of: PathBuf| assert!(fs::copy(of, &authorities).unwrap() > 0);
    let present = |of: Of| replace(certificates, of, files, "client");
    trust(certificates.authorities());
    present(Of::Client);
    let tls = Tls::new().authorities_file(&authorities);
    let tls = tls.identity_files(files.join("client.pem"), files.join("client.key"));
    let url = format!("amqp://{HOST}:{}", secured.port);
    let amqp = Amqp::builder(url).tls(tls).connect().await.unwrap();
    let topic = Topic::new("encrypted").unwrap();
    let mut source = subscribe(&amqp, group(&topic, "g")).await;
    check_passes(&amqp, &topic, &mut source, &"long".repeat(1 << 18)).await;
    secured.close_connections().await;
    check_passes(&amqp, &topic, &mut source, "after a reconnect").await;

    present(Of::Stranger);
    secured.close_connections().await;
    until_answer(&amqp, Some(ErrorKind::Unauthenticated)).await;
    present(Of::Client);
    until_answer(&amqp, None).await;
    check_passes(&amqp, &topic, &mut source, "with a new certificate").await;

    trust(certificates.other_authorities());
    secured.close_connections().await;
    until_answer(&amqp, Some(ErrorKind::Unauthenticated)).await;
    trust(certificates.authorities());
    until_answer(&amqp, None).await;
    check_passes(&amqp, &topic, &mut source, "with new authorities").await;
    assert!(!format!("{amqp:?}{:?}", amqp.as_client()).contains("PRIVATE KEY"));
    amqp.close().await.unwrap();
}

#[tokio::test]
async fn options_that_cannot_apply_are_refused_before_connecting() {
    let certificates = Certificates::make();
    let (authorities, good) = (certificates.anonymous(), certificates.options(Of::Client));
    for (url, word) in [
        ("amqps://localhost:1?tls_ca=/no/ca.pem".to_owned(), "tls_ca"),
        (format!("amqps://localhost:1?{authorities}&tls_cert=/no/app.pem&tls_key=/no/app.key"), "/no/app.pem"),
        (format!("amqps://localhost:1?{authorities}&tls_cert=/app.pem"), "tls_key"),
        (format!("amqp://localhost:1?{authorities}"), "amqps://"),
        (format!("amqps://localhost:1?{good}&plaintext=maybe"), "plaintext"),
    ] {
        check_refusal(&connect_to(&url).await.unwrap_err(), ErrorKind::InvalidConfig, word);
    }
    let tls = Tls::new().identity_pem("certificate", "-----BEGIN PRIVATE KEY-----\ns3cret");
    let builder = Amqp::builder("amqp://localhost:1").tls(tls);
    assert!(!format!("{builder:?}").contains("s3cret"));
    let error = builder.connect().await.unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidConfig && !told(&error).contains("s3cret"), "{}", told(&error));
    // By the scheme alone.
    check_refusal(&connect("amqps://localhost:1").await.unwrap_err(), ErrorKind::Unavailable, "localhost:1");
}

/// No host of these names is asked for.
#[tokio::test]
async fn passwords_are_not_sent_unencrypted_to_other_machines() {
    let (url, certificates) = ("amqp://app:s3cret@mq.invalid", Certificates::make());
    let refused = connect_to(url).await.unwrap_err();
    check_refusal(&refused, ErrorKind::InvalidConfig, "plaintext=yes");
    assert!(refused.to_string().contains("mq.invalid:5672") && !told(&refused).contains("s3cret"), "{refused}");
    let second = connect_to("amqp://app:s3cret@localhost,mq.invalid").await.unwrap_err();
    check_refusal(&second, ErrorKind::InvalidConfig, "mq.invalid");
    let builder = || Amqp::builder("amqp://mq.invalid").credentials("app", "s3cret");
    check_refusal(&builder().connect().await.unwrap_err(), ErrorKind::InvalidConfig, "plaintext=yes");

    let trusting = Tls::new().authorities_file(certificates.authorities());
    for (allowed, port) in [
        (connect_to(&format!("{url}?plaintext=yes")).await, 5672),
        (connect_to("amqp://mq.invalid").await, 5672),
        (builder().plaintext(Plaintext::Allowed).connect().await, 5672),
        (builder().tls(trusting).connect().await, 5672),
        (connect_to(&format!("amqps://app:s3cret@mq.invalid?{}", certificates.anonymous())).await, 5671),
    ] {
        check_refusal(&allowed.unwrap_err(), ErrorKind::Unavailable, &format!("mq.invalid:{port}"));
    }
}
