//! The options of each adapter: its table, the URL and the builder have the same ones.

use std::collections::BTreeSet;
use std::fs;

use crate::root;

/// Options whose setter has another name: in full, or as a property of the client.
const SPELLED: [(&str, &str, &str); 8] = [
    ("kafka", "linger", "property"),
    ("kafka", "mechanism", "property"),
    ("kafka", "client_id", "property"),
    ("nats", "ack", "acknowledge"),
    ("nats", "tls_ca", "certificate_authorities"),
    ("nats", "password_file", "user"),
    ("nats", "token_file", "token"),
    ("redis", "maxlen", "max_len"),
];

/// Options that a call of `Tls` takes, and that its one setter of the builder sets.
const OF_TLS: [&str; 4] = ["tls_ca", "tls_cert", "tls_key", "tls_server_name"];

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The options in the first table of the module documentation.
fn documented(adapter: &str) -> BTreeSet<String> {
    let text = read(&format!("adapters/{adapter}/mod.rs"));
    let rows = text.lines().skip_while(|line| !line.starts_with("//! | option |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with("//! |"));
    // A row may name several options of one kind.
    rows.flat_map(|row| {
        let names = row.split('|').nth(1).unwrap_or_default();
        names.split('`').skip(1).step_by(2).map(|name| name.split('=').next().unwrap().to_owned()).collect::<Vec<_>>()
    })
    .collect()
}

/// The code that takes the adapter's options from a URL.
fn code(adapter: &str) -> String {
    let file = if adapter == "memory" { "mod" } else { "config" };
    let text = read(&format!("adapters/{adapter}/{file}.rs"));
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect()
}

fn calls_tls(code: &str) -> bool {
    ["Tls::take(", "Tls::of_scheme("].iter().any(|call| code.contains(call))
}

/// The options that the code takes.
fn taken(code: &str) -> BTreeSet<String> {
    let of_tls = OF_TLS.iter().filter(|_| calls_tls(code));
    // `options.take("name")`, `options.take::<T>("name")` and `milliseconds(&mut options, "name")`.
    let names = code.split("options").skip(1).filter_map(|rest| {
        let (before, rest) = rest.split_once('"')?;
        let is_call = before.len() < 24 && (before.starts_with(".take") || before.trim() == ",");
        is_call.then(|| rest.split('"').next())?
    });
    names.chain(of_tls.copied()).map(str::to_owned).collect()
}

/// The setters of the adapter's builder, which may have its own file.
fn setters(adapter: &str) -> BTreeSet<String> {
    let file = |name: &&str| root().join(format!("adapters/{adapter}/{name}.rs")).exists();
    let files = ["config", "builder"].into_iter().filter(file);
    let text: String = files.map(|name| read(&format!("adapters/{adapter}/{name}.rs"))).collect();
    let names = text.lines().filter_map(|line| line.trim_start().strip_prefix("pub fn ")?.split(['(', '<']).next());
    names.map(str::to_owned).collect()
}

#[test]
fn the_table_the_url_and_the_builder_have_the_same_options() {
    for adapter in ["memory", "kafka", "amqp", "nats", "redis"] {
        let code = code(adapter);
        let (documented, taken) = (documented(adapter), taken(&code));
        assert!(!taken.is_empty(), "{adapter}");
        assert_eq!(documented, taken, "the table of adapters/{adapter}/mod.rs against the URL");
        if adapter == "memory" {
            continue;
        }
        let setters = setters(adapter);
        for option in &taken {
            let spelled = SPELLED.iter().find(|(of, name, _)| *of == adapter && name == option);
            let by_tls = calls_tls(&code) && OF_TLS.contains(&option.as_str());
            let setter = if by_tls { "tls" } else { spelled.map_or(option.as_str(), |(_, _, setter)| setter) };
            assert!(setters.contains(setter), "{adapter}: the builder cannot set {option}; it has {setters:?}");
        }
    }
}
