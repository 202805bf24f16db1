//! Two processes: one is killed while it publishes and acknowledges; the other reads the files that
//! it left.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use traced_broker::{ErrorKind, Message, Subscription, Traced, TracedBroker};
use traced_broker_files::Files;

/// The variable with the directory, set for the process that is killed.
const VICTIM: &str = "TRACED_BROKER_FILES_VICTIM";
/// The numbers of printed lines after which the process is killed.
const KILLED_AFTER: [usize; 4] = [1, 100, 1_000, 4_000];

#[tokio::main]
async fn main() {
    match env::var_os(VICTIM) {
        Some(directory) => work(Path::new(&directory)).await,
        None => {
            for words in KILLED_AFTER {
                survives_a_kill_after(words).await;
                println!("test survives_a_kill_after_{words}_words ... ok");
            }
        }
    }
}

fn group() -> Subscription {
    Subscription::new("orders").group("g").prefetch(64)
}

/// Publishes and acknowledges without end, and prints each confirmation.
async fn work(directory: &Path) {
    let broker = Traced::new(Files::open(directory, false).await.unwrap());
    let mut deliveries = broker.subscribe(group()).await.unwrap();
    let publishing = async {
        for number in 0_u64.. {
            broker.publish("orders", Message::new(number.to_string())).await.unwrap();
            println!("published {number}");
        }
    };
    let handling = async {
        while let Some(delivery) = deliveries.next().await {
            let delivery = delivery.unwrap();
            let number = String::from_utf8(delivery.message().payload().to_vec()).unwrap();
            // Every third message stays unsettled, until there is no room for more.
            if number.parse::<u64>().unwrap() % 3 == 2 && number.len() < 3 {
                std::mem::forget(delivery);
            } else {
                println!("settling {number}");
                delivery.ack().await.unwrap();
                println!("settled {number}");
            }
        }
    };
    tokio::join!(publishing, handling);
}

async fn survives_a_kill_after(words: usize) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut victim = Command::new(env::current_exe().unwrap());
    let mut victim = victim.env(VICTIM, directory.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut said: Vec<String> = Vec::new();
    // The first message may be handed out before the answer to its publish is printed.
    while said.len() < words || !said.iter().any(|line| line.starts_with("published")) {
        said.push(lines.next().expect("it goes on").unwrap());
    }

    let refused = Files::open(directory.path(), false).await.expect_err("another process has it open");
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    victim.kill().unwrap();
    victim.wait().unwrap();
    // Lines that it printed meanwhile; the system writes a line of this length whole or not at all.
    said.extend(lines.map_while(Result::ok));

    let numbers = |word: &str| -> BTreeSet<String> {
        said.iter().filter_map(|line| line.strip_prefix(word)).map(|number| number.trim().to_owned()).collect()
    };
    let (published, settling, settled) = (numbers("published"), numbers("settling"), numbers("settled"));
    let broker = Traced::new(Files::open(directory.path(), false).await.unwrap());
    let mut deliveries = broker.subscribe(group()).await.unwrap();
    let mut again = BTreeSet::new();
    while let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_millis(500), deliveries.next()).await {
        let delivery = delivery.unwrap();
        let number = String::from_utf8(delivery.message().payload().to_vec()).unwrap();
        assert!(!settled.contains(&number), "{number} was settled and comes again");
        again.insert(number);
        delivery.ack().await.unwrap();
    }
    // The last message may have been settled before it was printed.
    let lost: Vec<_> =
        published.iter().filter(|number| !settling.contains(*number) && !again.contains(*number)).collect();
    assert!(lost.is_empty(), "confirmed, not settled, and lost: {lost:?}");
    assert!(!published.is_empty(), "nothing was published: {said:?}");
    broker.close().await.unwrap();
}
