//! The rights that operations need: exactly the documented ones are enough, and each that is
//! missing is an error that names it.
//!
//! All clients are the user `ANONYMOUS`. A topic or group without any ACL is open to everyone; one
//! with an ACL is open to those whom it names.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Driver, DriverExt};
use traced_broker::{ErrorKind, Result, Start, Subscription, Topic};

use crate::harness::*;
use crate::support::{Kind, Server};

const CREATE_ACLS: i16 = 30;
const DESCRIBE_ACLS: i16 = 29;

#[derive(Clone, Copy)]
enum Resource {
    Topic = 2,
    Group = 3,
    Cluster = 4,
}

#[derive(Clone, Copy)]
enum Right {
    Read = 3,
    Write = 4,
    Create = 5,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
}

/// Either any kind of operation and permission, or the permission.
const ANY: u8 = 1;
const ALLOW: u8 = 3;
/// The resource of exactly that name.
const LITERAL: u8 = 3;

fn text(into: &mut Vec<u8>, text: &str) {
    into.extend((text.len() as i16).to_be_bytes());
    into.extend(text.as_bytes());
}

/// Sends a request of version 1 and returns the answer without its correlation id.
fn ask(port: u16, request: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(request.to_be_bytes());
    frame.extend(1_i16.to_be_bytes());
    frame.extend(7_i32.to_be_bytes());
    text(&mut frame, "operator");
    frame.extend(body);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(&(frame.len() as u32).to_be_bytes()).unwrap();
    stream.write_all(&frame).unwrap();
    let mut size = [0; 4];
    stream.read_exact(&mut size).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut answer).unwrap();
    answer.split_off(4)
}

/// Closes a resource to all but another user, and grants these rights.
fn close_except(port: u16, resource: Resource, name: &str, rights: &[Right]) {
    let nobody = [("User:nobody", Right::Read)];
    let granted = rights.iter().map(|right| ("User:ANONYMOUS", *right));
    let mut body = (1 + rights.len() as i32).to_be_bytes().to_vec();
    for (user, right) in nobody.into_iter().chain(granted) {
        body.push(resource as u8);
        text(&mut body, name);
        body.push(LITERAL);
        text(&mut body, user);
        text(&mut body, "*");
        body.extend([right as u8, ALLOW]);
    }
    let answer = ask(port, CREATE_ACLS, &body);
    // After throttling and the number of results: the code and the reason of each, here none.
    assert!(answer[8..].iter().all(|byte| [0, 0xff].contains(byte)), "{answer:?}");
    await_acls(port, resource, name, 1 + rights.len());
}

/// Waits until the broker knows so many ACLs of the resource.
fn await_acls(port: u16, resource: Resource, name: &str, count: usize) {
    let deadline = Instant::now() + LONG;
    loop {
        let mut filter = vec![resource as u8];
        text(&mut filter, name);
        filter.push(LITERAL);
        filter.extend([0xff; 4]); // any user, from any host
        filter.extend([ANY, ANY]);
        let answer = ask(port, DESCRIBE_ACLS, &filter);
        if answer.windows(5).filter(|bytes| bytes == b"User:").count() == count {
            return;
        }
        assert!(Instant::now() < deadline, "the ACLs do not arrive: {answer:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Site(Arc<Server>);

impl Site {
    async fn start() -> Self {
        let acls = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                    allow.everyone.if.no.acl.found=true";
        let server = spawn_blocking(move || {
            let own = Server::free_port(Kind::Kafka);
            Server::start_at(Kind::Kafka, own, vec![("KAFKA_PROPERTIES", acls.to_owned())])
        });
        Self(Arc::new(server.await.unwrap()))
    }

    /// Leaves the user only these rights on the resource.
    async fn close(&self, resource: Resource, name: &str, rights: &[Right]) {
        let (port, name, rights) = (self.0.port(), name.to_owned(), rights.to_vec());
        spawn_blocking(move || close_except(port, resource, &name, &rights)).await.unwrap();
    }

    async fn connect(&self, options: &str) -> Kafka {
        let short = "connect_timeout=5000&delivery_timeout=5000&commit_interval=50&partitions=1";
        connect(&format!("{}?{short}{options}", self.0.url())).await.unwrap()
    }

    /// Returns topics with three messages each, to which everyone has access.
    async fn topics(&self, count: usize) -> Vec<Topic> {
        let (kafka, mut topics) = (self.connect("").await, Vec::new());
        for _ in 0..count {
            let topic = topic(&kafka, "open").await;
            publish_numbers(&kafka, &topic, 0..3).await;
            topics.push(topic);
        }
        kafka.close().await.unwrap();
        topics
    }
}

/// Checks that an operation is refused, and that the error names the missing right.
fn is_denied<T>(result: Result<T>, right: &str, resource: &str) {
    let Err(error) = result else { panic!("works without {right} on the {resource}") };
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    let text = error.to_string();
    assert!(text.contains(right) && text.contains(&format!("on the {resource}")), "{text}");
}

/// Subscribes, receives and settles three messages, and closes, which commits.
async fn receive(kafka: &Kafka, subscription: &Subscription) -> Result<()> {
    let mut source = kafka.subscribe(subscription).await?;
    for _ in 0..3 {
        ack(next_item(&mut source).await.expect("the stream ended")?).await;
    }
    kafka.close().await
}

async fn subscribe_with(
    site: &Site,
    topic: &Topic,
    rights: &[Right],
    on_group: &[Right],
    is_member: bool,
) -> Result<()> {
    let group = unique("acls");
    site.close(Resource::Topic, topic, rights).await;
    site.close(Resource::Group, &group, on_group).await;
    let subscription = Subscription::new(&**topic).start(Start::Earliest);
    if is_member {
        receive(&site.connect("").await, &subscription.group(&group)).await
    } else {
        receive(&site.connect(&format!("&reader_group={group}")).await, &subscription).await
    }
}

async fn reposition_with(site: &Site, topic: &Topic, rights: &[Right], on_group: &[Right]) -> Result<()> {
    let group = unique("acls");
    site.close(Resource::Topic, topic, rights).await;
    site.close(Resource::Group, &group, on_group).await;
    let kafka = site.connect("").await;
    kafka.reposition(&Subscription::new(&**topic).group(&group), Start::Offset(1)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough_and_needed_to_publish() {
    use Right::{Create, Describe, Write};
    let site = Site::start().await;
    let topics = site.topics(4).await;
    site.close(Resource::Cluster, "kafka-cluster", &[Right::ClusterAction, Right::Alter]).await;
    site.close(Resource::Topic, "__consumer_offsets", &[]).await;
    site.connect("").await.ping().await.unwrap();

    for (topic, rights) in [(&topics[0], &[][..]), (&topics[1], &[Describe])] {
        site.close(Resource::Topic, topic, rights).await;
        let declared = site.connect("").await.declare(topic).await;
        if rights.is_empty() { is_denied(declared, "Describe", "topic") } else { drop(declared.unwrap()) }
    }
    for rights in [&[Describe][..], &[Describe, Create]] {
        let topic = Topic::new(&unique("new")).unwrap();
        site.close(Resource::Topic, &topic, rights).await;
        let declared = site.connect("").await.declare(&topic).await;
        if rights.len() == 1 { is_denied(declared, "Create", "topic") } else { drop(declared.unwrap()) }
    }
    for (topic, right) in [(&topics[2], Describe), (&topics[3], Write)] {
        site.close(Resource::Topic, topic, &[right]).await;
        let kafka = site.connect("").await;
        kafka.declare(topic).await.unwrap();
        let published = kafka.enqueue(topic, outbound("3")).await;
        if matches!(right, Write) { drop(published.unwrap()) } else { is_denied(published, "Write", "topic") }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_rights_are_enough_and_needed_to_subscribe() {
    use Right::{Describe, Read};
    let site = Site::start().await;
    let topics = site.topics(8).await;
    site.close(Resource::Cluster, "kafka-cluster", &[Right::ClusterAction, Right::Alter]).await;
    subscribe_with(&site, &topics[0], &[Read], &[Read], true).await.unwrap();
    is_denied(subscribe_with(&site, &topics[1], &[Describe], &[Read], true).await, "Read", "topic");
    is_denied(subscribe_with(&site, &topics[2], &[Read], &[Describe], true).await, "Read", "group");

    subscribe_with(&site, &topics[3], &[Read], &[Describe], false).await.unwrap();
    is_denied(subscribe_with(&site, &topics[4], &[Describe], &[Describe], false).await, "Read", "topic");

    reposition_with(&site, &topics[5], &[Read], &[Read]).await.unwrap();
    is_denied(reposition_with(&site, &topics[6], &[Describe], &[Read]).await, "Read", "topic");
    is_denied(reposition_with(&site, &topics[7], &[Read], &[Describe]).await, "Read", "group");
}
