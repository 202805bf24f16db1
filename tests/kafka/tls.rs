//! TLS, certificates of clients, and users over TLS: one server that has a port for each, and what
//! is refused before anything is sent.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::spawn_blocking;
use traced_broker::adapters::kafka::Kafka;
use traced_broker::driver::{Driver, Plaintext};
use traced_broker::{ErrorKind, Secret, Subscription, Tls};

use crate::harness::*;
use crate::support::certificates::{Certificates, HOST, Of, check_refusal};
use crate::support::orders::check_orders_on;
use crate::support::{Kind, Server};

const USER: &str = "app";
const PASSWORD: &str = "s3cret";
/// Connecting fails in this time.
const LIMIT: &str = "connect_timeout=5000";

/// A server, and the ports at which it presents different certificates.
struct Site {
    server: Server,
    certificates: Certificates,
    good: u16,
    elsewhere: u16,
    expired: u16,
    /// Asks for a user and not for a certificate.
    users: u16,
}

impl Site {
    async fn start() -> Self {
        spawn_blocking(Self::start_now).await.unwrap()
    }

    fn start_now() -> Self {
        let certificates = Certificates::make();
        let [port, controller, good, elsewhere, expired, users] = [(); 6].map(|()| Server::free_port(Kind::Kafka));
        let clients = format!(
            "CLIENTS://{HOST}:{port},GOOD://{HOST}:{good},ELSEWHERE://{HOST}:{elsewhere},\
             EXPIRED://{HOST}:{expired},USERS://{HOST}:{users}"
        );
        let stores: String = [("good", Of::Server), ("elsewhere", Of::Elsewhere), ("expired", Of::Expired)]
            .into_iter()
            .map(|(listener, of)| {
                store(&certificates, listener, of) + &format!("listener.name.{listener}.ssl.client.auth=required\n")
            })
            .collect();
        let modules = "org.apache.kafka.common.security";
        let properties = format!(
            "listeners={clients},CONTROLLER://{HOST}:{controller}
advertised.listeners={clients}
listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,GOOD:SSL,ELSEWHERE:SSL,EXPIRED:SSL,USERS:SASL_SSL
listener.name.users.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.users.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";
listener.name.users.scram-sha-256.sasl.jaas.config={modules}.scram.ScramLoginModule required;
listener.name.users.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;
{stores}{}",
            store(&certificates, "users", Of::Server)
        );
        let environment = vec![("CLUSTER_PEERS", controller.to_string()), ("KAFKA_PROPERTIES", properties)];
        let server = Server::start_at(Kind::Kafka, port, environment);
        Self { server, certificates, good, elsewhere, expired, users }
    }

    /// Makes the user of this mechanism.
    fn add_user(&self, mechanism: &str) {
        let mut command = self.server.kafka_tool("kafka.admin.ConfigCommand");
        command.args(["--bootstrap-server", &format!("{HOST}:{}", self.server.port()), "--alter"]);
        command.args(["--entity-type", "users", "--entity-name", USER]);
        command.args(["--add-config", &format!("{mechanism}=[password={PASSWORD}]")]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Returns the settings of a port that presents this certificate and trusts the authority.
fn store(certificates: &Certificates, listener: &str, of: Of) -> String {
    let file = certificates.key(of).with_extension("store");
    let parts = [certificates.key(of), certificates.certificate(of)];
    fs::write(&file, parts.map(|part| fs::read_to_string(part).unwrap()).concat()).unwrap();
    let (file, trusted) = (file.display(), certificates.authorities());
    format!(
        "listener.name.{listener}.ssl.keystore.type=PEM
listener.name.{listener}.ssl.keystore.location={file}
listener.name.{listener}.ssl.truststore.type=PEM
listener.name.{listener}.ssl.truststore.location={}
",
        trusted.display()
    )
}

/// Publishes and receives.
async fn works(kafka: &Kafka) {
    let topic = topic(kafka, "tls").await;
    publish_numbers(kafka, &topic, 0..3).await;
    let mut source = subscribe(kafka, &topic, &topic).await;
    assert_eq!(as_set(drain(&mut source, 3).await), as_set(0..3));
    kafka.close().await.unwrap();
}

/// The example runs with only the URL changed.
async fn runs_the_order_system(site: &Site) {
    let url = format!("kafkas://{HOST}:{}?{}", site.good, site.certificates.options(Of::Client));
    spawn_blocking(move || check_orders_on(&url)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_passwords_are_checked() {
    let site = Arc::new(Site::start().await);
    each_side_has_to_know_the_other(&site).await;
    files_are_read_for_each_client(&site).await;
    runs_the_order_system(&site).await;
    users_prove_their_passwords(site).await;
}

async fn files_are_read_for_each_client(site: &Site) {
    let (options, file) = (site.certificates.options(Of::Client), site.certificates.key(Of::Client));
    let kafka = connect(&format!("kafkas://{HOST}:{}?{options}", site.good)).await.unwrap();
    let (topic, key) = (topic(&kafka, "files").await, fs::read(&file).unwrap());
    fs::write(&file, "damaged").unwrap();
    publish_numbers(&kafka, &topic, 0..3).await;
    let group = Subscription::new(&*topic).group(&*topic);
    check_refusal(&kafka.subscribe(&group).await.unwrap_err(), ErrorKind::InvalidConfig, "tls_key");
    fs::write(&file, key).unwrap();
    let mut source = kafka.subscribe(&group).await.unwrap();
    assert_eq!(as_set(drain(&mut source, 3).await), as_set(0..3));
    kafka.close().await.unwrap();
}

async fn each_side_has_to_know_the_other(site: &Site) {
    let made = &site.certificates;
    let known = made.options(Of::Client);
    works(&connect(&format!("kafkas://{HOST}:{}?{known}", site.good)).await.unwrap()).await;
    let read = |path| fs::read(path).unwrap();
    let tls = Tls::new()
        .authorities_pem(read(made.authorities()))
        .identity_pem(read(made.certificate(Of::Client)), read(made.key(Of::Client)));
    works(&Kafka::builder(format!("{HOST}:{}", site.good)).tls(tls).connect().await.unwrap()).await;

    let (plain, secret) = (site.server.port(), fs::read_to_string(made.key(Of::Client)).unwrap());
    let refusals = [
        ("kafkas", site.good, made.distrusting(), ErrorKind::Unauthenticated, "tls_ca"),
        ("kafkas", site.elsewhere, known.clone(), ErrorKind::Unauthenticated, "another host"),
        ("kafkas", site.expired, known.clone(), ErrorKind::Unauthenticated, "expired"),
        ("kafkas", site.good, made.anonymous(), ErrorKind::Unauthenticated, "tls_cert"),
        ("kafkas", site.good, made.options(Of::Stranger), ErrorKind::Unauthenticated, "tls_cert"),
        ("kafka", site.good, String::new(), ErrorKind::Unavailable, "kafkas://"),
        ("kafkas", plain, known, ErrorKind::Unavailable, "kafka://"),
    ];
    let refused = refusals.iter().map(|(scheme, port, options, kind, word)| async move {
        let error = connect(&format!("{scheme}://{HOST}:{port}?{LIMIT}&{options}")).await.unwrap_err();
        check_refusal(&error, *kind, word);
        error
    });
    let shown = format!("{:?}", join_all(refused).await);
    assert!(!shown.contains(secret.lines().nth(1).unwrap()), "{shown}");
}

async fn users_prove_their_passwords(site: Arc<Site>) {
    let adding = Arc::clone(&site);
    let add = move || ["SCRAM-SHA-256", "SCRAM-SHA-512"].iter().for_each(|mechanism| adding.add_user(mechanism));
    spawn_blocking(add).await.unwrap();
    let url = |password, mechanism| {
        let trusted = site.certificates.anonymous();
        format!("kafkas://{USER}:{password}@{HOST}:{}?{LIMIT}&mechanism={mechanism}&{trusted}", site.users)
    };
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        works(&connect(&url(PASSWORD, mechanism)).await.unwrap()).await;
        let error = connect(&url("wr0ng", mechanism)).await.unwrap_err();
        check_refusal(&error, ErrorKind::Unauthenticated, "password");
        assert!(!format!("{error:?} {error}").contains("wr0ng"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_cannot_apply_are_refused_before_connecting() {
    let made = Certificates::make();
    let damaged = made.authorities().with_extension("txt");
    fs::write(&damaged, "no certificate").unwrap();
    let (key, certificate) = (made.key(Of::Stranger), made.certificate(Of::Client));
    let begun = Instant::now();
    for (url, word) in [
        ("kafkas://127.0.0.1:1?tls_ca=/no/ca.pem".to_owned(), "/no/ca.pem"),
        ("kafkas://127.0.0.1:1?tls_cert=/no/app.pem&tls_key=/no/app.key".to_owned(), "tls_cert"),
        ("kafkas://127.0.0.1:1?tls_cert=/no/app.pem".to_owned(), "belong together"),
        (format!("kafkas://127.0.0.1:1?tls_ca={}", damaged.display()), "tls_ca"),
        (format!("kafkas://127.0.0.1:1?tls_cert={0}&tls_key={1}", damaged.display(), key.display()), "tls_cert"),
        (format!("kafkas://127.0.0.1:1?tls_cert={0}&tls_key={0}", certificate.display()), "tls_key"),
        (format!("kafkas://127.0.0.1:1?tls_cert={}&tls_key={}", certificate.display(), key.display()), "tls_key"),
        ("kafka://127.0.0.1:1?tls_ca=/no/ca.pem".to_owned(), "scheme"),
        ("kafkas://127.0.0.1:1?tls_server_name=mq".to_owned(), "tls_server_name"),
        ("kafka://app:s3cret@kafka.example".to_owned(), "plaintext=yes"),
        ("kafka://app:s3cret@localhost,kafka.example?mechanism=SCRAM-SHA-512".to_owned(), "kafka.example"),
        ("kafka://localhost?plaintext=maybe".to_owned(), "plaintext"),
    ] {
        let error = connect(&url).await.unwrap_err();
        check_refusal(&error, ErrorKind::InvalidConfig, word);
        assert!(!format!("{error:?} {error}").contains("s3cret"), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_keys_nor_passwords_are_shown() {
    let tls = Tls::new().identity_pem("no certificate", "hunter2");
    let builder = Kafka::builder("127.0.0.1:1").tls(tls).credentials("app", Secret::new("hunter2"));
    let shown = format!("{builder:?}");
    let error = builder.connect().await.unwrap_err();
    check_refusal(&error, ErrorKind::InvalidConfig, "tls_cert");
    assert!(!format!("{shown} {error:?} {error}").contains("hunter2"), "{shown} {error:?}");
}

/// Whatever the way in which the password is given. Nothing listens at the address, which is never
/// given to a machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_leaves_the_machine_without_tls_only_if_that_is_allowed() {
    let builder = || {
        let builder = Kafka::builder("192.0.2.1:9092").connect_timeout(Duration::from_millis(300));
        builder.credentials("app", Secret::new("s3cret"))
    };
    let explicit = builder().property("security.protocol", "SASL_PLAINTEXT");
    for refused in [builder(), explicit, Kafka::from_client(client_of("192.0.2.1:9092"))] {
        check_refusal(&refused.connect().await.unwrap_err(), ErrorKind::InvalidConfig, "192.0.2.1");
    }
    for tried in [builder().plaintext(Plaintext::Allowed), builder().tls(Tls::new())] {
        assert_eq!(tried.connect().await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

fn client_of(servers: &str) -> rdkafka::ClientConfig {
    let mut client = rdkafka::ClientConfig::new();
    client.set("bootstrap.servers", servers).set("sasl.username", "app").set("sasl.password", "s3cret");
    client
}
