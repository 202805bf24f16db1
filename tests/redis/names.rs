//! Names of servers: several addresses, and addresses that change. Each test runs again in a
//! process that sees a file of its own in the place of `/etc/hosts`.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use traced_broker::driver::Driver;

use crate::harness::*;

/// The variable with the path of that file.
const HOSTS: &str = "TRACED_BROKER_TEST_HOSTS";

/// A name that only that file has.
const NAME: &str = "broker.test";

/// Addresses of this machine, beside that of the servers.
const OTHERS: [&str; 2] = ["127.0.7.1", "127.0.7.2"];

/// An address of this machine at which no server listens.
const CLOSED: &str = "127.0.7.3";

/// Passes connections to this address on to a server.
async fn relay(address: &str, port: u16, to: u16) {
    let listener = TcpListener::bind((address, port)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            let mut to = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut from, &mut to).await });
        }
    });
}

/// Runs the test `name` of this module in such a process.
fn with_hosts(name: &str, test: impl Future<Output = ()>) {
    if std::env::var_os(HOSTS).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(test);
    }
    let hosts = tempfile::NamedTempFile::new().unwrap();
    let mut again = Command::new("unshare");
    again.args(["--mount", "--map-root-user", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
    again.arg(hosts.path()).arg(std::env::current_exe().unwrap());
    again.args(["--exact", &format!("names::{name}"), "--nocapture"]).env(HOSTS, hosts.path());
    let output = again.output().expect("unshare, of the package util-linux");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "needs root or user namespaces:\n{said}");
}

/// Gives the name these addresses. The file is written in its place, because it is mounted.
fn point_to(addresses: &[&str]) {
    let lines: String = addresses.iter().map(|address| format!("{address} {NAME}\n")).collect();
    std::fs::write(Path::new(&std::env::var_os(HOSTS).unwrap()), lines).unwrap();
}

/// One of the addresses accepts connections and never answers, as a machine that hangs.
#[test]
fn an_address_that_does_not_answer_costs_little() {
    with_hosts("an_address_that_does_not_answer_costs_little", async {
        let server = server().await;
        let _silent = TcpListener::bind((OTHERS[0], server.port())).await.unwrap();
        // All addresses are of one kind: the system then keeps their order.
        relay(OTHERS[1], server.port(), server.port()).await;
        for addresses in [&[OTHERS[0], OTHERS[1]][..], &[OTHERS[1], OTHERS[0]], &[CLOSED, OTHERS[0], OTHERS[1]]] {
            point_to(addresses);
            let began = Instant::now();
            let broker = connect(&format!("redis://{NAME}:{}?connect_timeout=5000", server.port())).await.unwrap();
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
            let topic = topic("names");
            let mut source = subscribe(&broker, &topic, "g").await;
            publish_numbers(&broker, &topic, 0..3).await;
            assert_eq!(drain(&mut source, 3).await, numbers(0..3));
            Raw::at(&server.url()).await.break_connections().await;
            publish_in_the_end(&broker, &topic).await;
            assert_eq!(drain(&mut source, 1).await, ["after"]);
            broker.close().await.unwrap();
        }
    });
}

/// A failover by name: the server is gone, and the name has the address of another one.
#[test]
fn a_name_is_looked_up_again_when_the_connection_is_lost() {
    with_hosts("a_name_is_looked_up_again_when_the_connection_is_lost", async {
        let (first, second) = (server().await, server().await);
        relay(OTHERS[0], first.port(), second.port()).await;
        point_to(&["127.0.0.1"]);
        let (broker, topic) = (connect(&format!("redis://{NAME}:{}", first.port())).await.unwrap(), topic("moved"));
        let mut source = subscribe(&broker, &topic, "g").await;
        publish_numbers(&broker, &topic, 0..1).await;
        assert_eq!(drain(&mut source, 1).await, ["0"]);
        let first = Arc::new(first);
        let killed = Arc::clone(&first);
        point_to(&[OTHERS[0]]);
        blocking(move || killed.kill()).await;
        publish_in_the_end(&broker, &topic).await;
        assert_eq!(drain(&mut source, 1).await, ["after"]);
        assert_eq!(Raw::at(&second.url()).await.run::<usize>(&["XLEN", &topic]).await, 1);
        broker.close().await.unwrap();
    });
}

/// Publishes one message, over the next connection if the first is lost meanwhile.
async fn publish_in_the_end(broker: &traced_broker::adapters::redis::Redis, topic: &traced_broker::Topic) {
    let began = Instant::now();
    while let Err(error) = publish(broker, topic, message("after")).await {
        assert!(began.elapsed() < SOON, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
