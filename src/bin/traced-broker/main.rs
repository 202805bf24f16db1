//! The command `traced-broker`: checks traces from outside, and moves messages with their traces.
#![forbid(unsafe_code)]

mod args;
mod bar;
mod bridge;
mod client;
mod compare;
mod consume;
mod context;
mod deliveries;
mod doctor;
mod endpoint;
mod error;
mod input;
mod message;
mod output;
mod probe;
mod publish;
mod redrive;
mod secrets;
mod stop;
mod telemetry;
mod time;
mod verify;

use std::env;
use std::process::{self, ExitCode};

use clap::{CommandFactory as _, Parser as _};
use clap_complete::Shell;

use self::args::{Arguments, Command};

/// The exit code of a command that found a broken trace, or a lost or undeliverable message.
const BROKEN: u8 = 1;
/// The exit code of a command that could not do its work; clap uses it for a wrong command line,
/// too.
const FAILED: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match arguments().command {
        Command::Verify(options) => verify::run(*options).await,
        Command::Probe(options) => probe::run(options).await,
        Command::Doctor(options) => doctor::run(options).await,
        Command::Publish(options) => publish::run(options).await.map(|()| true),
        Command::Consume(options) => consume::run(options).await.map(|()| true),
        Command::Bridge(options) => bridge::run(options).await,
        Command::Redrive(options) => redrive::run(options).await,
        Command::Compare(options) => compare::run(&options).await.map(|()| true),
        Command::Completions { shell } => output::print(&completions(shell)).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        Err(error) => {
            output::print_error(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// Parses the command line. An error does not repeat the password of a URL.
fn arguments() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|error| {
        let arguments = env::args_os().map(|argument| argument.to_string_lossy().into_owned());
        let secrets: Vec<String> = arguments
            .filter_map(|url| Some(url.split_once("://")?.1.to_owned()))
            .filter(|rest| rest.contains('@'))
            .collect();
        if secrets.is_empty() {
            error.exit();
        }
        let text = secrets.iter().fold(error.render().to_string(), |text, secret| text.replace(secret, "***"));
        output::print_usage_error(text.trim_end());
        process::exit(error.exit_code());
    })
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "traced-broker", &mut script);
    let script = String::from_utf8_lossy(&script);
    // In half of its bash script, clap_complete 4.6.11 takes the hyphen of the name for the start
    // of a subcommand.
    script.trim_end().replace("traced__subcmd__broker", "traced__broker")
}
