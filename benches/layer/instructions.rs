//! Instructions per operation, counted by callgrind: the difference of two runs, so that one-time
//! work does not count.

use std::process::{Command, exit};

use crate::contenders::{Contender, Operation};

/// The first argument of a counted run.
pub(crate) const WORK: &str = "--work";

const FEW: u64 = 2_000;
const MANY: u64 = 6 * FEW;

/// Runs the operation `count` times.
pub(crate) fn work(name: &str, count: u64) {
    let (_, contender) = named().into_iter().find(|(known, _)| known == name).expect("the name of a contender");
    let mut operation = contender.prepare();
    for _ in 0..count {
        operation();
    }
}

pub(crate) fn print_table() {
    println!("{:<32} instructions per operation", "");
    for (name, _) in named() {
        let per_operation = (count(&name, MANY) - count(&name, FEW)) as f64 / (MANY - FEW) as f64;
        println!("{name:<32} {per_operation:>8.0}");
    }
}

fn named() -> Vec<(String, Contender)> {
    let operations = [(Operation::Publish, "publish"), (Operation::Process, "process")];
    let all = operations.into_iter().flat_map(|(operation, words)| {
        Contender::all(operation).into_iter().map(move |contender| (format!("{words}: {contender}"), contender))
    });
    all.collect()
}

fn count(name: &str, operations: u64) -> u64 {
    let itself = std::env::current_exe().unwrap();
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(itself);
    let output = match command.args([WORK, name, &operations.to_string()]).output() {
        Ok(output) => output,
        Err(error) => {
            println!("valgrind cannot be started, which counts the instructions: {error}");
            exit(2);
        }
    };
    let words = String::from_utf8_lossy(&output.stderr);
    let collected = words.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.unwrap_or_else(|| panic!("callgrind tells what it counted:\n{words}"))
}
