//! The table of broker features in `docs/guarantees.md`, checked against the capabilities that the
//! brokers report.

use traced_broker::{TracedBroker, connect};

/// Checks the column of the broker at `url`.
pub(crate) async fn check_column(url: &str) {
    let broker = connect(url).await.unwrap();
    let page = include_str!("../../docs/guarantees.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let column = if url.contains("mode=core") { "core NATS" } else { column_of(broker.system()) };
    let header = rows.iter().position(|row| row.get(1) == Some(&"memory")).expect("the table");
    let index = rows[header].iter().position(|name| *name == column).expect("a column for this broker");
    let words = broker.capabilities().in_words();
    let words: Vec<(&str, &str)> = words.iter().map(|(question, answer)| (*question, &**answer)).collect();
    let told: Vec<(&str, &str)> = rows[header + 2..].iter().take(words.len()).map(|row| (row[0], row[index])).collect();
    assert_eq!(told, words, "the column {column} of docs/guarantees.md");
    broker.close().await.unwrap();
}

fn column_of(system: &str) -> &'static str {
    match system {
        "memory" => "memory",
        "kafka" => "Kafka",
        "rabbitmq" => "RabbitMQ",
        "nats" => "JetStream",
        "redis" => "Redis Streams",
        other => panic!("docs/guarantees.md has no column for {other}"),
    }
}
