//! Connecting: options, addresses, credentials, user-supplied clients.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use traced_broker::adapters::redis::Redis;
use traced_broker::driver::Driver;
use traced_broker::{ErrorKind, Secret, Subscription, Topic};

use crate::harness::*;

#[tokio::test]
async fn refuses_urls_that_make_no_sense() {
    let refused = [
        ("redis://127.0.0.1/orders", "database"),
        ("redis://127.0.0.1/-1", "database"),
        ("redis://a,b/", "one host"),
        ("redis+unix://127.0.0.1/", "scheme"),
        ("redis://127.0.0.1/?topology=maybe", "topology"),
        ("redis://127.0.0.1/?maxlen=0", "maxlen"),
        ("redis://127.0.0.1/?claim_idle=99", "claim_idle"),
        ("redis://127.0.0.1/?connect_timeout=0", "time-out"),
        ("redis://127.0.0.1/?protocol=resp3", "topology connect_timeout response_timeout claim_idle maxlen"),
    ];
    for (url, says) in refused {
        let error = connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{url}: {error}");
        assert!(error.to_string().contains(says), "{url}: {error}");
    }
}

#[tokio::test]
async fn says_where_nobody_answers() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap().to_string();
    // It accepts connections and never answers.
    let began = Instant::now();
    let silent = connect(&format!("redis://{address}?connect_timeout=300")).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3));
    drop(free);
    let refused = connect(&format!("redis://{address}")).await.unwrap_err();
    let unknown = connect("redis://no-such-host.invalid:6379?connect_timeout=5000").await.unwrap_err();
    for error in [&silent, &refused, &unknown] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("check"), "{error}");
    }
    assert!(silent.to_string().contains(&address) && refused.to_string().contains(&address));
    assert!(unknown.to_string().contains("no-such-host.invalid:6379"));
    assert!(std::error::Error::source(&refused).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authenticates_and_tells_no_secret() {
    let server = server().await;
    let mut raw = Raw::at(&server.url()).await;
    let _: () = raw.run(&["ACL", "SETUSER", "app", "on", ">s3cret", "~app.*", "+@all", "-@dangerous"]).await;
    let _: () = raw.run(&["CONFIG", "SET", "requirepass", "hidden"]).await;
    let host = server.url().trim_start_matches("redis://").to_owned();
    for url in [host.clone(), format!("app:wr0ng@{host}"), format!(":wr0ng@{host}"), format!("s3cret@{host}")] {
        let error = connect(&format!("redis://{url}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("wr0ng") && !shown.contains("s3cret"), "{shown}");
    }
    connect(&format!("redis://:hidden@{host}")).await.unwrap().ping().await.unwrap();

    let broker = Redis::builder(format!("redis://{host}?claim_idle=400")).credentials("app", Secret::new("s3cret"));
    assert!(!format!("{broker:?}").contains("s3cret"));
    let broker = broker.connect().await.unwrap();
    assert!(!format!("{broker:?} {:?}", broker.as_client()).contains("s3cret"));
    broker.ping().await.unwrap();
    let (own, foreign) = (topic("app.own"), topic("foreign"));
    let mut source = subscribe(&broker, &own, "g").await;
    publish(&broker, &own, message("x")).await.unwrap();
    assert_eq!(drain(&mut source, 1).await, ["x"]);
    let error = publish(&broker, &foreign, message("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert_eq!(broker.declare(&foreign).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    let error = broker.subscribe(&Subscription::new(&*foreign).group("g")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    broker.close().await.unwrap();
}

/// A password with a character that belongs to URLs is not taken for anything that is shown.
#[tokio::test]
async fn repeats_no_part_of_a_password_that_did_not_parse() {
    let secret = "4secret5";
    let passwords =
        ["a/4secret5", "a?4secret5", "a#4secret5", "/4secret5", "?4secret5=x", "4secret5?a=b", "12345/4secret5"];
    for password in passwords {
        for url in [format!("redis://admin:{password}@127.0.0.1:1/0"), format!("redis://:{password}@127.0.0.1:1")] {
            let parsed = traced_broker::BrokerUrl::parse(&url);
            let shown = match parsed {
                Ok(url) => format!("{url:?} {:?}", Redis::connect(&url).await.unwrap_err()),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains(secret) && !shown.contains("12345"), "{url}: {shown}");
            let builder = Redis::builder(&url);
            let before = format!("{builder:?}");
            let shown = format!("{before} {:?}", builder.connect().await.unwrap_err());
            assert!(!shown.contains(secret) && !shown.contains("12345"), "{url}: {shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn needs_neither_scripts_nor_client_commands() {
    let server = server().await;
    let mut raw = Raw::at(&server.url()).await;
    let rules = ["+@stream", "+type", "+ping", "+client|id", "-@scripting"];
    let _: () =
        raw.call(::redis::cmd("ACL").arg("SETUSER").arg("least").arg("on").arg("nopass").arg("~*").arg(&rules)).await;
    let url = server.url().replace("redis://", "redis://least:any@");
    let (broker, topic) = (connect(&format!("{url}?claim_idle=400")).await.unwrap(), topic("least"));
    broker.declare(&topic).await.unwrap();
    let mut source = subscribe(&broker, &topic, "g").await;
    publish_numbers(&broker, &topic, 0..3).await;
    let fails = next(&mut source).await;
    fails.handle.failed(1);
    drop(fails);
    // The count is lost without permission for its key, the message is not.
    let mut came = drain(&mut source, 3).await;
    came.sort();
    assert_eq!(came, numbers(0..3));
    broker.close().await.unwrap();
}

#[tokio::test]
async fn selects_the_database() {
    let (one, two) = (topic("database"), Topic::new("unused").unwrap());
    let broker = connect(&format!("{}/3", url())).await.unwrap();
    publish(&broker, &one, message("x")).await.unwrap();
    assert_eq!(Raw::new().await.run::<usize>(&["EXISTS", &one, &two]).await, 0);
    assert_eq!(Raw::at(&format!("{}/3", url())).await.run::<usize>(&["EXISTS", &one]).await, 1);
    let error = connect(&format!("{}/99999", url())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
}
