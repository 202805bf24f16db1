//! Tests of the commands that work on brokers, without a server.

use std::time::{Duration, Instant};

use crate::command::traced_broker;

const COMMANDS: [&str; 6] = ["publish", "consume", "probe", "doctor", "bridge", "redrive"];

/// Returns valid arguments for each command.
fn arguments<'a>(command: &'a str, url: &'a str) -> Vec<&'a str> {
    match command {
        "publish" => vec![command, url, "orders", "--data", "x"],
        "bridge" => vec![command, "memory://here", "orders", url, "orders"],
        _ => vec![command, url, "orders"],
    }
}

#[tokio::test]
async fn each_has_examples_exit_codes_and_completions() {
    let all = traced_broker(&["--help"]).await.ends_with(0);
    let completions = traced_broker(&["completions", "fish"]).await.ends_with(0);
    for command in COMMANDS {
        let help = traced_broker(&[command, "--help"]).await.ends_with(0);
        help.prints(&["Examples:", &format!("traced-broker {command} "), "Exit codes:", "--json"]);
        assert!(all.out.contains(&format!("\n  {command} ")), "{all:?}");
        assert!(completions.out.contains(&format!("using_subcommand {command}\" -l json")), "{command}");
    }
    traced_broker(&["probe", "--help"]).await.prints(&["WARNING: consumers of the topic see the messages"]);
}

#[tokio::test]
async fn no_secret_of_a_url_is_repeated() {
    for command in COMMANDS {
        for url in ["pigeon://me:topsecret@roof", "topsecret", "redis://me:topsecret@["] {
            let outcome = traced_broker(&arguments(command, url)).await.ends_with(2).never_shows("topsecret");
            outcome.complains(&["traced-broker: cannot connect to"]);
        }
        let one_too_many = [&arguments(command, "memory://")[..], &["amqp://me:topsecret@rabbit/x"]].concat();
        traced_broker(&one_too_many).await.ends_with(2).never_shows("topsecret").complains(&["amqp://***"]);
    }
}

#[tokio::test]
async fn a_scheme_that_is_not_built_in_names_its_feature() {
    let built_in = [
        ("kafka", cfg!(feature = "kafka")),
        ("amqp", cfg!(feature = "amqp")),
        ("nats", cfg!(feature = "nats")),
        ("redis", cfg!(feature = "redis")),
    ];
    for (scheme, is_built_in) in built_in {
        let url = format!("{scheme}://127.0.0.1:9?connect_timeout=1000");
        let outcome = traced_broker(&arguments("consume", &url)).await.ends_with(2);
        let feature = format!("features = [\"{scheme}\"]");
        assert_eq!(outcome.err.contains(&feature), !is_built_in, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_name_that_is_none_is_refused() {
    for command in ["publish", "consume", "probe", "doctor", "redrive"] {
        let mut wrong = arguments(command, "memory://");
        wrong[2] = "orders/new";
        traced_broker(&wrong).await.ends_with(2).complains(&["orders/new"]);
    }
}

#[tokio::test]
async fn a_wrong_option_is_explained() {
    let consume = ["consume", "memory://", "orders"];
    for (options, words) in [
        (["--from", "yesterday"], "`yesterday` is neither earliest, latest, a time"),
        (["--count", "0"], "0 is not in 1.."),
        (["--for", "soon"], "`soon` is not a duration"),
    ] {
        traced_broker(&[&consume[..], &options].concat()).await.ends_with(2).complains(&[words]);
    }
    let doctor = ["doctor", "memory://", "orders", "--min-valid", "101"];
    traced_broker(&doctor).await.ends_with(2).complains(&["`101` is not a number from 0 to 100"]);
    let publish = ["publish", "memory://", "orders", "--data", "x"];
    for header in ["topsecret", ": topsecret"] {
        let outcome =
            traced_broker(&[&publish[..], &["--header", "a: b", "--header", header]].concat()).await.ends_with(2);
        outcome.complains(&["--header number 2 is not of the form"]).never_shows("topsecret");
    }
    let missing = ["publish", "memory://", "orders", "--data", "@/no/such/file"];
    traced_broker(&missing).await.ends_with(2).complains(&["--data: cannot read /no/such/file"]);
}

/// The embedded broker exists once per process, which is enough for commands that use one broker.
#[tokio::test]
async fn the_embedded_broker_will_do_for_a_probe() {
    let outcome = traced_broker(&["probe", "memory://", "orders", "--count", "3"]).await.ends_with(0);
    outcome.prints(&["3 of 3 arrived, 3 with the context as sent", "p50", "p99", "by the broker's clock"]);
    let outcome = traced_broker(&["publish", "memory://", "orders", "--data", "x", "--json"]).await.ends_with(0);
    outcome.prints(&[r#""outcome":"confirmed""#, r#""trace_id":""#]);
    let begun = Instant::now();
    let lost = ["probe", "memory://", "orders", "--watch-topic", "elsewhere", "--timeout", "300ms"];
    traced_broker(&lost).await.ends_with(1).prints(&["✗ lost"]);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_command_ends_after_its_time() {
    traced_broker(&["consume", "memory://?topology=create", "orders", "--for", "300ms"]).await.ends_with(0);
    traced_broker(&["consume", "memory://", "orders", "--for", "300ms"])
        .await
        .ends_with(2)
        .complains(&["topology=create"]);
    traced_broker(&["doctor", "memory://?topology=create", "orders", "--for", "300ms"]).await.ends_with(2);
    let bridge = ["bridge", "memory://a", "orders", "memory://b", "orders", "--until-empty=300ms"];
    traced_broker(&bridge).await.ends_with(0).prints(&["0 copied"]);
    let redrive = ["redrive", "memory://a", "orders.dead", "--idle", "300ms"];
    traced_broker(&redrive).await.ends_with(0).prints(&["0 sent back"]);
}
