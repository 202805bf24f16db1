//! A user with the least privileges that the documentation of each adapter names, whose rights an
//! operator revokes and restores.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::operator::{Done, PATIENCE};
use crate::support::{Kind, Server, send_signal};

const USER: &str = "chaos";
/// The password. It must not appear in any text of the library, so it is easy to find.
pub(crate) const SECRET: &str = "hush-b1e7c0de";

/// A server with such a user, and the address for it.
pub(crate) fn start(kind: Kind) -> Result<(Server, String), String> {
    let (port, users) = (Server::free_port(kind), Server::free_port(kind));
    let environment = match kind {
        Kind::Kafka => kafka_environment(port, users),
        Kind::Nats => vec![("NATS_USERS", nats_users(true))],
        _ => Vec::new(),
    };
    let server = Server::try_start_at(kind, port, environment)?;
    let port = if kind == Kind::Kafka { users } else { port };
    let scheme = server.url().split(':').next().unwrap_or_default().to_owned();
    prepare(&server).map_err(|error| format!("the user cannot be made: {error}"))?;
    Ok((server, format!("{scheme}://{USER}:{SECRET}@127.0.0.1:{port}")))
}

/// Makes the user.
fn prepare(server: &Server) -> Done<()> {
    match server.kind() {
        Kind::RabbitMq => {
            server.rabbitmqctl(&["add_user", USER, SECRET])?;
        }
        Kind::Kafka => {
            kafka_acl(server, &["--add", "--operation", "Read", "--group", "*"])?;
        }
        _ => {}
    }
    restore(server)
}

/// Gives the user all rights that the library needs.
pub(crate) fn restore(server: &Server) -> Done<()> {
    match server.kind() {
        Kind::RabbitMq => {
            let names = r"^(chaos\.orders.*|traced-broker\..*|amq\.default)$";
            server.rabbitmqctl(&["set_permissions", USER, names, names, names])?;
        }
        Kind::Nats => reload(server, true)?,
        Kind::Redis => redis(server, |commands| {
            let rules = "on ~chaos.orders ~chaos.orders.* ~{chaos.orders}:* ~{chaos.orders.* \
                +@stream +type +ping +client|id +hset +hincrby +hmget +hdel +hscan +expire";
            commands.arg("SETUSER").arg(USER).arg(format!(">{SECRET}"));
            for rule in rules.split_whitespace() {
                commands.arg(rule);
            }
        })?,
        Kind::Kafka => kafka_acl(server, &[&["--add"], &TOPICS[..]].concat())?,
        _ => return Err("this server has no users".into()),
    }
    Ok(())
}

/// Takes the rights from the user, and ends its connections if the server does not do so.
pub(crate) fn revoke(server: &Server) -> Done<()> {
    match server.kind() {
        Kind::RabbitMq => {
            server.rabbitmqctl(&["clear_permissions", USER])?;
            server.rabbitmqctl(&["close_all_user_connections", USER, "revoked"])?;
        }
        Kind::Nats => reload(server, false)?,
        Kind::Redis => {
            redis(server, |commands| {
                commands.arg("SETUSER").arg(USER).arg("off");
            })?;
            let mut connection = redis::Client::open(server.url())?.get_connection()?;
            redis::cmd("CLIENT").arg("KILL").arg("USER").arg(USER).query::<u64>(&mut connection)?;
        }
        Kind::Kafka => kafka_acl(server, &[&["--remove", "--force"], &TOPICS[..]].concat())?,
        _ => return Err("this server has no users".into()),
    }
    Ok(())
}

fn redis(server: &Server, rules: impl FnOnce(&mut redis::Cmd)) -> redis::RedisResult<()> {
    let mut connection = redis::Client::open(server.url())?.get_connection()?;
    let mut command = redis::cmd("ACL");
    rules(&mut command);
    command.query(&mut connection)
}

/// The operator has no password: a connection without a user is the operator's.
fn nats_users(has_user: bool) -> String {
    let user = format!(
        "{{ user: {USER}, password: {SECRET}, permissions: {{
            publish: [ \"_INBOX.>\", \"chaos.orders\", \"chaos.orders.dead\", \"@tries.>\", \"$JS.ACK.>\",
                \"$JS.API.INFO\", \"$JS.API.STREAM.NAMES\", \"$JS.API.STREAM.INFO.*\", \"$JS.API.STREAM.CREATE.*\",
                \"$JS.API.STREAM.MSG.*.*\", \"$JS.API.CONSUMER.>\" ],
            subscribe: \"_INBOX.>\" }} }}"
    );
    let user = if has_user { user } else { String::new() };
    format!("authorization {{ users: [ {{ user: operator, password: operator }}, {user} ] }}\nno_auth_user: operator\n")
}

fn reload(server: &Server, has_user: bool) -> Done<()> {
    fs::write(server.directory().join("users.conf"), nats_users(has_user))?;
    send_signal("HUP", server.pid());
    let begin = Instant::now();
    while admits(server.port())? != has_user {
        if begin.elapsed() > PATIENCE {
            return Err("the server does not read its configuration again".into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Returns `true` if NATS admits the user.
fn admits(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(stream, "CONNECT {{\"verbose\":false,\"user\":\"{USER}\",\"pass\":\"{SECRET}\"}}\r\nPING\r\n")?;
    // The server presents itself first.
    let answer = BufReader::new(stream).lines().nth(1).transpose()?;
    Ok(answer.is_some_and(|line| line == "PONG"))
}

const TOPICS: [&str; 8] =
    ["--operation", "Read", "--operation", "Write", "--operation", "Create", "--resource-pattern-type", "prefixed"];

/// The users have a listener of their own. The operator and the controller have no name and all
/// rights.
fn kafka_environment(port: u16, users: u16) -> Vec<(&'static str, String)> {
    let controller = Server::free_port(Kind::Kafka);
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    let properties = format!(
        "listeners=CLIENTS://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},USERS://127.0.0.1:{users}
advertised.listeners=CLIENTS://127.0.0.1:{port},USERS://127.0.0.1:{users}
listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,USERS:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.users.plain.sasl.jaas.config={module} required user_{USER}=\"{SECRET}\";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS"
    );
    vec![("CLUSTER_PEERS", controller.to_string()), ("KAFKA_PROPERTIES", properties)]
}

/// Calls Kafka's own command for access rights.
fn kafka_acl(server: &Server, arguments: &[&str]) -> Done<()> {
    let address = format!("127.0.0.1:{}", server.port());
    let principal = format!("User:{USER}");
    let mut command = server.kafka_tool("org.apache.kafka.tools.AclCommand");
    command.args(["--bootstrap-server", &address, "--allow-principal", &principal]).args(arguments);
    if arguments.contains(&"prefixed") {
        command.args(["--topic", "chaos.orders"]);
    }
    let output = command.output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}
