//! The releases of servers that the documentation names are those that the tests install.

use std::fs;

use super::root;

/// The rows of the table: the server, and the oldest supported and the later release by their names
/// in the file of versions.
const ROWS: [(&str, &str, &str); 5] = [
    ("Apache Kafka", "", "KAFKA"),
    ("NATS", "", "NATS"),
    ("RabbitMQ", "RABBITMQ_AT_LEAST", "RABBITMQ_4"),
    ("Redis", "REDIS_AT_LEAST", "REDIS_8"),
    ("Valkey", "", "VALKEY"),
];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// Returns the release with this name in the file of versions.
fn version(name: &str) -> String {
    let file = read("tests/testbed/versions");
    let mut values = file.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.next().unwrap_or_else(|| panic!("no version {name}")).to_owned()
}

#[test]
fn the_table_of_servers_has_the_releases_of_the_testbed() {
    let version = |name: &str| if name.is_empty() { String::new() } else { version(name) };
    let expected = ROWS.map(|(server, oldest, later)| vec![server.to_owned(), version(oldest), version(later)]);
    let page = read("docs/compatibility.md");
    let section = page.split("\n## Servers\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect();
    let told: Vec<Vec<String>> = rows.skip(2).map(cells).collect();
    assert_eq!(told, expected);
}

#[test]
fn the_adapters_and_the_readme_name_the_oldest_releases() {
    for (adapter, server, name) in [("amqp", "RabbitMQ", "RABBITMQ_AT_LEAST"), ("redis", "Redis", "REDIS_AT_LEAST")] {
        let words = format!("{server} {} or later", version(name));
        assert!(read("README.md").contains(&words), "the README says: {words}");
        assert!(read(&format!("adapters/{adapter}/mod.rs")).contains(&words), "the adapter says: {words}");
    }
}
