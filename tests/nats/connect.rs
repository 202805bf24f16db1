//! Connecting: the errors, and their wording.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use traced_broker::adapters::nats::{Mode, Nats};
use traced_broker::driver::Driver;
use traced_broker::{BrokerUrl, ErrorKind, Secret, Subscription};

use crate::kit::{self, ack, connect_to, message, next, publish, raw, subscribe, text, topic};
use crate::process::Process;
use crate::support::{Kind, shared};

fn address() -> (String, u16) {
    BrokerUrl::parse(shared(Kind::Nats)).unwrap().hosts(4222).remove(0)
}

#[tokio::test]
async fn identity_says_who_and_where() {
    let nats = kit::connect().await;
    let (host, port) = address();
    let identity = nats.identity();
    assert_eq!((identity.system, identity.server_address.as_deref()), ("nats", Some(host.as_str())));
    assert_eq!((identity.server_port, identity.max_in_flight), (Some(port), 1024));
    nats.ping().await.unwrap();
}

#[tokio::test]
async fn options_that_are_not_valid_are_refused_by_name() {
    let refused = [
        ("?colour=blue", "colour"),
        ("?mode=push", "mode"),
        ("?topology=maybe", "topology"),
        ("?ack=never", "ack"),
        ("?ack_wait=soon", "ack_wait"),
        ("?ack_wait=1", "ack_wait"),
        ("?connect_timeout=0", "time-out"),
        ("?replicas=9", "replicas"),
        ("?header_names=upper", "header_names"),
        ("/path", "path"),
    ];
    for (options, part) in refused {
        let error = connect_to(&format!("{}{options}", shared(Kind::Nats))).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{options}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = connect_to("nats://localhost?colour=blue").await.unwrap_err().to_string();
    let valid = [
        "mode",
        "topology",
        "ack_wait",
        "connect_timeout",
        "confirm_timeout",
        "replicas",
        "max_age",
        "header_names",
        "tls",
    ];
    for valid in valid {
        assert!(error.contains(valid), "{error}");
    }
    assert_eq!(Nats::builder("kafka://x").connect().await.unwrap_err().kind(), ErrorKind::InvalidConfig);
    assert_eq!(Nats::builder("x").mode(Mode::Core).connect().await.unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn an_absent_server_is_reported_soon_with_its_address() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = Instant::now();
    let error = connect_to(&format!("nats://{closed}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&closed.to_string()), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

    // A server that accepts the connection and sends no answer.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap();
    let start = Instant::now();
    let error = connect_to(&format!("nats://{silent_address}?connect_timeout=300")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&silent_address.to_string()), "{error}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());

    let error = connect_to("nats://no-such-host.invalid").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no-such-host.invalid:4222"), "{error}");
}

#[tokio::test]
async fn of_several_servers_one_is_enough() {
    let (host, port) = address();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nats = connect_to(&format!("nats://{closed},{host}:{port}")).await.unwrap();
    nats.ping().await.unwrap();
}

#[tokio::test]
async fn credentials_are_used_and_never_shown() {
    let server = Process::start(&["--jetstream", "--user", "app", "--pass", "s3cret-p4ss"]);
    let port = server.port();
    let nats = connect_to(&format!("nats://app:s3cret-p4ss@127.0.0.1:{port}")).await.unwrap();
    let topic = topic("secret");
    kit::publish_numbers(&nats, &topic, 0..1).await;
    ack(next(&mut subscribe(&nats, &topic, "workers").await).await).await;
    assert!(!format!("{nats:?}").contains("s3cret-p4ss"), "{nats:?}");
    let built = Nats::builder(format!("nats://127.0.0.1:{port}")).user("app", Secret::new("s3cret-p4ss"));
    assert!(!format!("{built:?}").contains("s3cret-p4ss"), "{built:?}");
    built.connect().await.unwrap().ping().await.unwrap();

    for credentials in ["", "app:wr0ng-p4ss@", "t0ken@"] {
        let error = connect_to(&format!("nats://{credentials}127.0.0.1:{port}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("wr0ng-p4ss") && !shown.contains("t0ken"), "{shown}");
    }
}

#[tokio::test]
async fn a_user_without_password_is_a_token() {
    let server = Process::start(&["--jetstream", "--auth", "t0ken"]);
    connect_to(&format!("nats://t0ken@127.0.0.1:{}", server.port())).await.unwrap().ping().await.unwrap();
    let built = Nats::builder(format!("nats://127.0.0.1:{}", server.port())).token(Secret::new("t0ken"));
    built.connect().await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn a_server_without_jetstream_is_told_from_one_with() {
    let server = Process::start(&[]);
    let url = format!("nats://127.0.0.1:{}", server.port());
    let error = connect_to(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("mode=core"), "{error}");
    connect_to(&format!("{url}?mode=core")).await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn a_client_of_the_users_own_does_everything() {
    let nats = Nats::from_client(raw().await).connect().await.unwrap();
    assert_eq!(nats.identity().server_port, Some(address().1));
    let topic = topic("given");
    nats.declare(&topic).await.unwrap();
    publish(&nats, &topic, message("x")).await.unwrap();
    let mut source = subscribe(&nats, &topic, "workers").await;
    let mut reader = nats.subscribe(&Subscription::new(&*topic)).await.unwrap();
    let inbound = next(&mut source).await;
    assert_eq!(text(&inbound), "x");
    ack(inbound).await;
    nats.as_client().publish(topic.to_string(), "raw".into()).await.unwrap();
    for source in [&mut source, &mut reader] {
        assert_eq!(text(&next(source).await), "raw");
    }
    nats.close().await.unwrap();
}

#[tokio::test]
async fn a_refusal_for_want_of_permission_is_called_that() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("nats.conf");
    let rules = r#"authorization { users = [ { user: app, password: x, permissions: { publish: { deny: "forbidden.>" } } } ] }"#;
    std::fs::write(&config, rules).unwrap();
    let server = Process::start(&["--jetstream", "--config", config.to_str().unwrap()]);
    let url = format!("nats://app:x@127.0.0.1:{}?confirm_timeout=500", server.port());
    let nats = connect_to(&url).await.unwrap();
    let topic = topic("forbidden");
    nats.declare(&topic).await.unwrap();
    let error = publish(&nats, &topic, message("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains(topic.as_str()), "{error}");
}

/// The server says only where it listens, which is everywhere.
#[tokio::test]
async fn the_address_is_that_of_the_server_in_use() {
    let given = Nats::from_client(raw().await).max_age(Duration::from_secs(60)).connect().await.unwrap();
    assert_ne!(given.identity().server_address.as_deref(), Some("0.0.0.0"));
    let everywhere = Process::start(&["--addr", "0.0.0.0", "--jetstream"]);
    let client = async_nats::connect(format!("127.0.0.1:{}", everywhere.port())).await.unwrap();
    let given = Nats::from_client(client).connect().await.unwrap();
    assert_eq!(given.identity().server_address, None);
    let absent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let several = format!("nats://localhost:{absent},localhost:{}", everywhere.port());
    let nats = connect_to(&several).await.unwrap();
    assert_eq!(nats.identity().server_address.as_deref(), Some("localhost"));
    assert_eq!(nats.identity().server_port, Some(everywhere.port()));
}
