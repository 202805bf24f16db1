//! The command `traced-broker`: checks from outside whether traces are whole.
#![forbid(unsafe_code)]

mod args;
mod client;
mod compare;
mod duration;
mod screen;
mod trouble;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use clap_complete::Shell;

use self::args::{Arguments, Command};

/// What `verify` exits with when the trace is broken.
const BROKEN: u8 = 1;
/// What the command exits with when it could not do what it was asked to; also clap's code for a wrong command line.
const COULD_NOT: u8 = 2;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Verify(options) => verify::run(*options).await,
        Command::Compare(options) => compare::run(&options).await.map(|()| true),
        Command::Completions { shell } => screen::print(&completions(shell)).map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        Err(trouble) => {
            screen::complain(&trouble);
            ExitCode::from(COULD_NOT)
        }
    }
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "traced-broker", &mut script);
    let script = String::from_utf8_lossy(&script);
    // clap_complete 4.6.11 takes the hyphen of the name for the start of a subcommand in half of its bash script.
    script.trim_end().replace("traced__subcmd__broker", "traced__broker")
}
