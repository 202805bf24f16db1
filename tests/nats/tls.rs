//! Connections with TLS, and those that it refuses.

use traced_broker::adapters::nats::Nats;
use traced_broker::driver::Driver;
use traced_broker::{Error, ErrorKind, Tls};

use crate::kit::*;
use crate::process::Process;
use crate::support::certificates::{Certificates, HOST, OTHER_NAME, Of, check_refusal};
use crate::support::orders::check_orders_on;
use crate::support::{Kind, shared};

/// Starts a server with this certificate that wants one of its clients.
fn server(certificates: &Certificates, of: Of) -> Process {
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let (certificate, key) = (path(certificates.certificate(of)), path(certificates.key(of)));
    let authorities = path(certificates.authorities());
    let mut options = vec!["--jetstream", "--tls", "--tlscert", &certificate, "--tlskey", &key];
    options.extend(["--tlsverify", "--tlscacert", &authorities]);
    Process::start(&options)
}

/// Publishes and consumes one message.
async fn works(nats: &Nats) {
    let topic = topic("encrypted");
    let mut source = subscribe(nats, &topic, "g").await;
    publish(nats, &topic, message("x")).await.unwrap();
    assert_eq!(next(&mut source).await.payload.as_deref(), Some(&b"x"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_with_certificates_of_both_sides() {
    let certificates = Certificates::make();
    let server = server(&certificates, Of::Server);
    for scheme in ["tls", "nats"] {
        let url = format!("{scheme}://{HOST}:{}?{}", server.port(), certificates.options(Of::Client));
        let nats = connect_to(&url).await.unwrap();
        works(&nats).await;
        nats.close().await.unwrap();
    }
    let read = |file: std::path::PathBuf| std::fs::read(file).unwrap();
    let tls = Tls::new().authorities_pem(read(certificates.authorities()));
    let tls = tls.identity_pem(read(certificates.certificate(Of::Client)), read(certificates.key(Of::Client)));
    works(&Nats::builder(format!("nats://{HOST}:{}", server.port())).tls(tls).connect().await.unwrap()).await;
}

/// The example runs with only the URL changed.
#[test]
fn runs_the_order_system() {
    let certificates = Certificates::make();
    let server = server(&certificates, Of::Server);
    check_orders_on(&format!("tls://{HOST}:{}?{}", server.port(), certificates.options(Of::Client)));
}

/// Connects in vain. If the server ends the connection before the client has read why, the client
/// does not know, and connects again.
async fn refused(url: &str) -> Error {
    let mut error = connect_to(url).await.unwrap_err();
    for _ in 0..20 {
        if error.kind() != ErrorKind::Unavailable {
            break;
        }
        error = connect_to(url).await.unwrap_err();
    }
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_side_refuses_what_it_does_not_trust() {
    let certificates = Certificates::make();
    let servers = [Of::Server, Of::Elsewhere, Of::Expired].map(|of| (of, server(&certificates, of)));
    let port_of = |wanted: Of| servers.iter().find(|(of, _)| *of == wanted).unwrap().1.port();
    for (of, options, word) in certificates.mistrust() {
        let error = refused(&format!("nats://{HOST}:{}?{options}", port_of(of))).await;
        check_refusal(&error, ErrorKind::Unauthenticated, word);
        assert!(!format!("{error:?}").contains("PRIVATE KEY"));
    }
    let url = format!("nats://{HOST}:{}?{}", port_of(Of::Elsewhere), certificates.options(Of::Client));
    connect_to(&format!("{url}&tls_server_name={OTHER_NAME}")).await.unwrap().close().await.unwrap();

    // The server tells that it wants TLS, so the client uses it with the system's authorities.
    let asked = connect_to(&format!("nats://{HOST}:{}", port_of(Of::Server))).await.unwrap_err();
    check_refusal(&asked, ErrorKind::Unauthenticated, "tls_ca");
    let plain = shared(Kind::Nats).trim_start_matches("nats://");
    let error = connect_to(&format!("tls://{plain}?connect_timeout=3000")).await.unwrap_err();
    check_refusal(&error, ErrorKind::Unavailable, "TLS");
}

/// The files are replaced while the connection lives, and then it is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_read_anew_at_each_connect() {
    let (first, second) = (Certificates::make(), Certificates::make());
    let (old, new) = (server(&first, Of::Server), server(&second, Of::Server));
    let (here, there) = (old.port(), new.port());
    let url = format!("nats://{HOST}:{here}?{}", first.options(Of::Client));
    // Only the first server can be used with the first files.
    let nats = connect_to(&url.replacen('?', &format!(",{HOST}:{there}?"), 1)).await.unwrap();
    works(&nats).await;
    first.replace_those_of_clients(&second);
    drop(old);
    let deadline = tokio::time::Instant::now() + SOON * 2;
    while nats.ping().await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the new certificates are used");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    works(&nats).await;
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_connecting() {
    let certificates = Certificates::make();
    let ca = certificates.authorities().display().to_string();
    let key = certificates.key(Of::Client).display().to_string();
    for (url, word) in [
        (format!("nats://{HOST}?tls_ca=/no/ca.pem"), "/no/ca.pem"),
        (format!("nats://{HOST}?tls_ca={ca}&tls_cert={ca}"), "tls_key"),
        (format!("nats://{HOST}?tls_ca={key}"), "tls_ca"),
        (format!("nats://{HOST}?tls_ca={ca}&tls_server_name=a%20b"), "tls_server_name"),
        (format!("nats://app:s3cret@{HOST}?plaintext=maybe"), "plaintext"),
    ] {
        let error = connect_to(&url).await.unwrap_err();
        check_refusal(&error, ErrorKind::InvalidConfig, word);
    }
}
