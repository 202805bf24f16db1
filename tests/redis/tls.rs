//! Connections with TLS, and those that it refuses.

use std::net::TcpListener;
use std::time::Duration;

use traced_broker::adapters::redis::Redis;
use traced_broker::driver::Driver;
use traced_broker::{ErrorKind, Tls};

use crate::harness::*;
use crate::support::certificates::{Certificates, HOST, OTHER_NAME, Of, check_refusal};
use crate::support::orders::check_orders_on;
use crate::support::{Kind, shared};
use crate::transports::{OwnServer, works};

/// Starts a server with this certificate that wants one of its clients. Returns its port, too.
fn server(certificates: &Certificates, of: Of) -> (OwnServer, u16) {
    let port = TcpListener::bind((HOST, 0)).unwrap().local_addr().unwrap().port();
    let (certificate, key, authorities) =
        (certificates.certificate(of), certificates.key(of), certificates.authorities());
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (certificate, key, authorities) = (path(&certificate), path(&key), path(&authorities));
    let number = port.to_string();
    let mut arguments = vec!["--tls-port", &number, "--tls-auth-clients", "yes", "--tls-ca-cert-file", &authorities];
    arguments.extend(["--tls-cert-file", &certificate, "--tls-key-file", &key]);
    (OwnServer::start(tempfile::tempdir().unwrap(), &arguments), port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_with_certificates_of_both_sides() {
    let certificates = Certificates::make();
    let (own, port) = server(&certificates, Of::Server);
    let url = format!("rediss://{HOST}:{port}?{}", certificates.options(Of::Client));
    works(Redis::builder(url), &own).await;
}

/// The example runs with only the URL changed.
#[test]
fn runs_the_order_system() {
    let certificates = Certificates::make();
    let (_server, port) = server(&certificates, Of::Server);
    check_orders_on(&format!("rediss://{HOST}:{port}?{}", certificates.options(Of::Client)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_side_refuses_what_it_does_not_trust() {
    let certificates = Certificates::make();
    let servers = [Of::Server, Of::Elsewhere, Of::Expired].map(|of| (of, server(&certificates, of)));
    let port_of = |wanted: Of| servers.iter().find(|(of, _)| *of == wanted).unwrap().1.1;
    for (of, options, word) in certificates.mistrust() {
        let error = connect(&format!("rediss://{HOST}:{}?{options}", port_of(of))).await.unwrap_err();
        check_refusal(&error, ErrorKind::Unauthenticated, word);
        assert!(!format!("{error:?}").contains("PRIVATE KEY"));
    }
    let url = format!("rediss://{HOST}:{}?{}", port_of(Of::Elsewhere), certificates.options(Of::Client));
    connect(&format!("{url}&tls_server_name={OTHER_NAME}")).await.unwrap().close().await.unwrap();

    let plain = format!("redis://{HOST}:{}?connect_timeout=3000", port_of(Of::Server));
    check_refusal(&connect(&plain).await.unwrap_err(), ErrorKind::Unavailable, "rediss://");
    let plain_port = shared(Kind::Redis).trim_start_matches("redis://");
    let error = connect(&format!("rediss://{plain_port}?connect_timeout=3000")).await.unwrap_err();
    check_refusal(&error, ErrorKind::Unavailable, "TLS");
}

/// The files are replaced while the connection lives, and then it is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_read_anew_at_each_connect() {
    let (first, second) = (Certificates::make(), Certificates::make());
    let (own, port) = server(&first, Of::Server);
    let broker = connect(&format!("rediss://{HOST}:{port}?{}", first.options(Of::Client))).await.unwrap();
    let topic = topic("renewed");
    publish(&broker, &topic, message("1")).await.unwrap();
    first.replace_those_of_clients(&second);
    let mut raw = own.client().get_multiplexed_async_connection().await.unwrap();
    let path = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
    let mut renew = ::redis::cmd("CONFIG");
    renew.arg("SET").arg("tls-ca-cert-file").arg(path(second.authorities()));
    renew.arg("tls-cert-file").arg(path(second.certificate(Of::Server)));
    renew.arg("tls-key-file").arg(path(second.key(Of::Server)));
    let _: () = renew.query_async(&mut raw).await.unwrap();
    let mut kill = ::redis::cmd("CLIENT");
    let _: i64 =
        kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes").query_async(&mut raw).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    publish(&broker, &topic, message("2")).await.unwrap();
    broker.close().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_before_connecting() {
    let certificates = Certificates::make();
    let ca = certificates.authorities().display().to_string();
    let key = certificates.key(Of::Client).display().to_string();
    let missing = format!("rediss://{HOST}?tls_ca=/no/ca.pem");
    for (url, word) in [
        (missing.as_str(), "/no/ca.pem"),
        (&format!("redis://{HOST}?tls_ca={ca}"), "tls_"),
        (&format!("rediss://{HOST}?tls_ca={ca}&tls_cert={ca}"), "tls_key"),
        (&format!("rediss://{HOST}?tls_ca={key}"), "tls_ca"),
        (&format!("rediss://{HOST}?tls_ca={ca}&tls_cert={ca}&tls_key={key}"), "tls_key"),
        ("redis://:s3cret@cache.example", "plaintext=yes"),
        ("redis://:s3cret@cache.example?plaintext=maybe", "plaintext"),
    ] {
        let error = connect(url).await.unwrap_err();
        check_refusal(&error, ErrorKind::InvalidConfig, word);
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
    let client = ::redis::ConnectionAddr::TcpTls { host: HOST.into(), port: 1, insecure: false, tls_params: None };
    let client = ::redis::Client::open(::redis::IntoConnectionInfo::into_connection_info(client).unwrap()).unwrap();
    let error = Redis::from_client(client.clone()).connect().await.unwrap_err();
    check_refusal(&error, ErrorKind::InvalidConfig, "tls");
    let error = Redis::from_client(client).tls(Tls::new().authorities_file(ca)).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
