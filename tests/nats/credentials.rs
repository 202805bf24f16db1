//! Credentials that expire, several servers, TLS, and refusals.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use traced_broker::adapters::nats::{Mode, Nats};
use traced_broker::driver::Driver;
use traced_broker::{BrokerUrl, ErrorKind, PublishOutcome, Secret, SecretSource, Topic};

use crate::kit::{self, connect_to, message, publish, topic};
use crate::process::Process;
use crate::support::certificates::Certificates;
use crate::support::{Kind, shared};

/// Returns a signed statement of one key about another.
fn jwt(by: &KeyPair, about: &KeyPair, expires: u64, facts: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let (subject, issuer) = (about.public_key(), by.public_key());
    let claims = format!(r#"{{"jti":"x","iat":1,"exp":{expires},"iss":"{issuer}","sub":"{subject}","nats":{facts}}}"#);
    let text = format!("{}.{}", part(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(by.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

fn in_seconds(seconds: u64) -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + seconds
}

/// A server of an operator with one account, and a user of it.
struct Operated {
    process: Process,
    account: KeyPair,
    user: KeyPair,
    _directory: tempfile::TempDir,
}

impl Operated {
    fn start() -> Self {
        let (operator, account, user) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_user());
        let far = in_seconds(3600);
        let limits =
            r#"{"subs":-1,"data":-1,"payload":-1,"imports":-1,"exports":-1,"wildcards":true,"conn":-1,"leaf":-1}"#;
        let of_account =
            jwt(&operator, &account, far, &format!(r#"{{"type":"account","version":2,"limits":{limits}}}"#));
        let mut config = String::new();
        writeln!(config, "operator: {}", jwt(&operator, &operator, far, r#"{"type":"operator","version":2}"#)).unwrap();
        writeln!(config, "resolver: MEMORY").unwrap();
        writeln!(config, "resolver_preload: {{ {}: {of_account} }}", account.public_key()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nats.conf");
        std::fs::write(&path, config).unwrap();
        let process = Process::start(&["--config", path.to_str().unwrap()]);
        Self { process, account, user, _directory: directory }
    }

    /// Writes credentials that are good for so many seconds.
    fn write(&self, file: &Path, seconds: u64) {
        let facts = r#"{"type":"user","version":2,"subs":-1,"data":-1,"payload":-1}"#;
        let token = jwt(&self.account, &self.user, in_seconds(seconds), facts);
        let seed = self.user.seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let new = file.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, file).unwrap();
    }
}

/// The file is replaced before or after the credentials in it expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_read_anew_and_a_refusal_is_told() {
    let operated = Operated::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("app.creds");
    operated.write(&file, 3);
    let url = format!("nats://127.0.0.1:{}", operated.process.port());
    let nats = Nats::builder(&url).credentials_file(&file).mode(Mode::Core).connect().await.unwrap();
    let topic = Topic::new("orders").unwrap();
    publish(&nats, &topic, message("x")).await.unwrap();
    let begun = Instant::now();
    let reason = loop {
        assert!(begun.elapsed() < kit::SOON * 2, "the credentials expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Err(error) = publish(&nats, &topic, message("y")).await {
            assert_eq!((error.kind(), error.publish_outcome()), (ErrorKind::Unavailable, PublishOutcome::NotSent));
            let reason = error.context().find(|(name, _)| *name == "reason").map(|(_, text)| text.to_owned());
            if let Some(reason) = reason.filter(|reason| reason.contains("authorization violation")) {
                break reason;
            }
        }
    };
    assert!(!reason.contains(&operated.user.seed().unwrap()), "{reason}");
    operated.write(&file, 3600);
    let begun = Instant::now();
    while publish(&nats, &topic, message("z")).await.is_err() {
        assert!(begun.elapsed() < kit::SOON * 2, "the new ones are used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_credentials_file_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("app.creds");
    for text in [None, Some("nothing")] {
        text.inspect(|text| std::fs::write(&file, text).unwrap());
        let error = Nats::builder(shared(Kind::Nats)).credentials_file(&file).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains("app.creds"), "{error}");
    }
}

/// It accepts connections and says nothing, as a lost node behind a firewall.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_leaves_time_for_the_others() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    let (host, port) = BrokerUrl::parse(shared(Kind::Nats)).unwrap().hosts(4222).remove(0);
    for _ in 0..8 {
        let url = format!("nats://{silent},{host}:{port}?connect_timeout=3000");
        connect_to(&url).await.unwrap().ping().await.unwrap();
    }
}

#[tokio::test]
async fn who_names_authorities_gets_no_connection_without_tls() {
    let certificates = Certificates::make();
    let server = shared(Kind::Nats);
    let bare = server.strip_prefix("nats://").unwrap();
    for url in [format!("{server}?tls_ca={}", certificates.authorities().display()), format!("tls://{bare}")] {
        let refused = connect_to(&url).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        assert!(refused.to_string().contains("TLS"), "{refused}");
    }
}

#[tokio::test]
async fn lists_are_read_as_other_clients_write_them() {
    let server = Process::start(&["--jetstream", "--user", "app", "--pass", "s3cret"]);
    let port = server.port();
    let twice = format!("nats://app:s3cret@127.0.0.1:{port},nats://app:s3cret@localhost:{port}");
    connect_to(&twice).await.unwrap().ping().await.unwrap();
    let token = BrokerUrl::parse("nats://t0ken@localhost").unwrap();
    assert!(!format!("{token:?}").contains("t0ken"), "{token:?}");
    let two = BrokerUrl::parse("nats://app:s3cret@a,nats://app:0ther@b").unwrap_err();
    assert_eq!(two.kind(), ErrorKind::InvalidConfig);
    assert!(!format!("{two} {two:?}").contains("0ther"), "{two}");
}

/// A refusal is the reason of what was refused, and of nothing that fails later.
#[tokio::test]
async fn a_refusal_is_not_told_as_the_reason_of_later_trouble() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("nats.conf");
    let rules = r#"authorization { users = [ { user: app, password: x,
        permissions: { publish: { deny: [ "forbidden.>", "$JS.API.STREAM.INFO.silent" ] } } } ] }"#;
    std::fs::write(&config, rules).unwrap();
    let process = Process::start(&["--jetstream", "--config", config.to_str().unwrap()]);
    let nats = connect_to(&format!("nats://app:x@127.0.0.1:{}?confirm_timeout=1500", process.port())).await.unwrap();
    let forbidden = topic("forbidden");
    nats.declare(&forbidden).await.unwrap();
    // Sent by somebody else over the same connection, and awaited by nobody.
    nats.as_client().publish("forbidden.note", "".into()).await.unwrap();
    nats.as_client().flush().await.unwrap();
    let begun = Instant::now();
    let refused = publish(&nats, &forbidden, message("x")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
    assert!(begun.elapsed() < Duration::from_millis(1400), "without waiting for an answer");
    nats.as_client().publish("forbidden.note", "".into()).await.unwrap();
    // A stream that does not answer, because somebody listens to its subject and does not reply.
    let deaf = topic("deaf");
    let user = async_nats::ConnectOptions::with_user_and_password("app".to_owned(), "x".to_owned());
    let raw = user.connect(format!("127.0.0.1:{}", process.port())).await.unwrap();
    let _listening = raw.subscribe(deaf.to_string()).await.unwrap();
    let begun = Instant::now();
    let late = loop {
        let error = publish(&nats, &deaf, message("x")).await.unwrap_err();
        if error.kind() != ErrorKind::Unavailable {
            break error;
        }
        assert!(begun.elapsed() < kit::SOON, "somebody listens");
    };
    assert_eq!((late.kind(), late.publish_outcome()), (ErrorKind::Timeout, PublishOutcome::Unknown), "{late}");
}

/// Starts a server with this configuration of its users, which can be replaced.
fn secured(directory: &Path, users: &str) -> (Process, std::path::PathBuf) {
    let config = directory.join("nats.conf");
    std::fs::write(&config, users).unwrap();
    let pid = format!("pid_file: {:?}\n", directory.join("pid"));
    std::fs::write(&config, format!("{pid}{users}")).unwrap();
    (Process::start(&["--config", config.to_str().unwrap()]), config)
}

/// Replaces the users of a server, which ends the connections of those that are gone.
fn replace(directory: &Path, users: &str) {
    let pid = directory.join("pid");
    std::fs::write(directory.join("nats.conf"), format!("pid_file: {pid:?}\n{users}")).unwrap();
    let pid = std::fs::read_to_string(pid).unwrap();
    assert!(std::process::Command::new("kill").args(["-HUP", pid.trim()]).status().unwrap().success());
}

async fn publish_until(nats: &Nats, succeeds: bool) -> Option<String> {
    let (topic, begun) = (Topic::new("orders").unwrap(), Instant::now());
    loop {
        let published = publish(nats, &topic, message("x")).await;
        let reason = published
            .as_ref()
            .err()
            .and_then(|error| error.context().find(|(name, _)| *name == "reason").map(|(_, text)| text.to_owned()));
        // The reason is told once an attempt was refused.
        if published.is_ok() == succeeds && (succeeds || reason.is_some()) {
            return reason;
        }
        assert!(begun.elapsed() < kit::SOON * 2, "{published:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A password or token is replaced at the server first, and in its file afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_and_tokens_are_read_anew_and_a_refusal_is_told() {
    for kind in ["password", "token"] {
        let directory = tempfile::tempdir().unwrap();
        let rules = |secret: &str| match kind {
            "password" => format!("authorization {{ users = [ {{ user: app, password: {secret} }} ] }}"),
            _ => format!("authorization {{ token: {secret} }}"),
        };
        let (process, _) = secured(directory.path(), &rules("first-secret"));
        let file = directory.path().join("secret");
        std::fs::write(&file, "first-secret\n").unwrap();
        let user = if kind == "password" { "app@" } else { "" };
        let url = format!("nats://{user}127.0.0.1:{}?mode=core&{kind}_file={}", process.port(), file.display());
        let nats = connect_to(&url).await.unwrap();
        publish_until(&nats, true).await;
        replace(directory.path(), &rules("second-secret"));
        let reason = publish_until(&nats, false).await.unwrap();
        assert!(reason.to_lowercase().contains("authorization violation"), "{reason}");
        assert!(!reason.contains("secret"), "{reason}");
        std::fs::write(&file, "second-secret\n").unwrap();
        publish_until(&nats, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_gives_the_password_at_each_connect() {
    let directory = tempfile::tempdir().unwrap();
    let rules = |secret: u32| format!("authorization {{ users = [ {{ user: app, password: n{secret} }} ] }}");
    let (process, _) = secured(directory.path(), &rules(1));
    let current = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(1));
    let asked = std::sync::Arc::clone(&current);
    let source = SecretSource::function(move || {
        let number = asked.load(std::sync::atomic::Ordering::Relaxed);
        async move { Ok(Secret::new(format!("n{number}"))) }
    });
    let builder = Nats::builder(format!("nats://127.0.0.1:{}", process.port())).user("app", source);
    assert!(!format!("{builder:?}").contains("n1"));
    let nats = builder.mode(Mode::Core).connect().await.unwrap();
    publish_until(&nats, true).await;
    current.store(2, std::sync::atomic::Ordering::Relaxed);
    replace(directory.path(), &rules(2));
    let reconnects = nats.as_client().statistics();
    let begun = Instant::now();
    while reconnects.connects.load(std::sync::atomic::Ordering::Relaxed) < 2 {
        assert!(begun.elapsed() < kit::SOON, "another connection");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    publish_until(&nats, true).await;
    for refused in ["nats://h?password_file=/x", "nats://u:p@h?password_file=/x", "nats://u:p@h?token_file=/x"] {
        assert_eq!(connect_to(refused).await.unwrap_err().kind(), ErrorKind::InvalidConfig, "{refused}");
    }
    let error = connect_to("nats://u@h?password_file=/no/such/file").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("/no/such/file"), "{error}");
}

/// A user whose inboxes no other user may read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inboxes_have_the_prefix_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let rules = r#"jetstream: enabled
        authorization { users = [ { user: app, password: x, permissions: {
            publish: [ "private.>", "$JS.API.>", "$JS.ACK.>" ], subscribe: "_INBOX_app.>" } } ] }"#;
    let (process, _) = secured(directory.path(), rules);
    let url = format!("nats://app:x@127.0.0.1:{}?confirm_timeout=1000", process.port());
    let refused = connect_to(&url).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Timeout, "{refused}");
    let nats = connect_to(&format!("{url}&inbox_prefix=_INBOX_app")).await.unwrap();
    let topic = Topic::new("private.orders").unwrap();
    kit::publish_numbers(&nats, &topic, 0..3).await;
    let mut source = kit::subscribe(&nats, &topic, "workers").await;
    for number in 0..3 {
        let inbound = kit::next(&mut source).await;
        assert_eq!(kit::text(&inbound), number.to_string());
        kit::ack(inbound).await;
    }
    nats.close().await.unwrap();
    for wrong in ["a..b", "a.*", ">", "a%20b"] {
        let error = connect_to(&format!("{url}&inbox_prefix={wrong}")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{wrong}: {error}");
    }
}
