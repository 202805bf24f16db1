//! The command line, and the commands `compare` and `completions`.

use crate::command::{traced_broker, verify};
use crate::traces::ID;

#[tokio::test]
async fn help_has_examples_and_exit_codes() {
    traced_broker(&["verify", "--help"]).await.ends_with(0).prints(&[
        "Examples:",
        "--expect 'process orders'",
        "Exit codes:",
    ]);
    traced_broker(&["compare", "--help"]).await.ends_with(0).prints(&["Example:", "compare kafka://"]);
    traced_broker(&["--help"]).await.ends_with(0).prints(&["verify", "compare", "completions"]);
}

#[tokio::test]
async fn a_wrong_command_line_is_explained() {
    traced_broker(&[]).await.ends_with(2);
    traced_broker(&["verify", "--trace-id", ID]).await.ends_with(2).complains(&["--tempo", "--jaeger"]);
    traced_broker(&["verify", "--tempo", "http://localhost"])
        .await
        .ends_with(2)
        .complains(&["--request", "--trace-id"]);
    let both = ["--trace-id", ID, "--tempo", "http://localhost", "--jaeger", "http://localhost"];
    verify(&both).await.ends_with(2).complains(&["cannot be used with"]);
    for (id, words) in [("5b8e", "32 hex digits"), ("00000000000000000000000000000000", "all zeros")] {
        verify(&["--trace-id", id, "--tempo", "http://localhost"]).await.ends_with(2).complains(&["--trace-id", words]);
    }
    let soon = ["--trace-id", ID, "--tempo", "http://localhost", "--deadline", "soon"];
    verify(&soon).await.ends_with(2).complains(&["`soon` is not a duration"]);
}

/// Neither clap nor the command repeats secrets.
#[tokio::test]
async fn secrets_in_a_wrong_command_line_are_not_repeated() {
    let id = ["--trace-id", ID];
    let wrong: [&[&str]; 6] = [
        &["--tempo", "http://me:topsecret@["],
        &["--tempo", "https://me:topsecret@tempo.test"],
        &["--tempo", "me:topsecret@tempo.test"],
        &["--tempo", "http://localhost", "--backend-header", "topsecret"],
        &["--tempo", "http://localhost", "--header", "X: topsecret"],
        &["--tempo", "http://localhost", "--tempo", "http://topsecret@localhost"],
    ];
    for arguments in wrong {
        verify(&[&id[..], arguments].concat()).await.ends_with(2).never_shows("topsecret");
    }
    for request in ["topsecret", "POST topsecret", "POST http://me:topsecret@["] {
        verify(&["--request", request, "--tempo", "http://localhost"]).await.ends_with(2).never_shows("topsecret");
    }
}

#[tokio::test]
async fn completions_are_for_the_shell_asked_for() {
    for (shell, word) in
        [("zsh", "#compdef traced-broker"), ("fish", "complete -c traced-broker"), ("bash", "complete -F")]
    {
        traced_broker(&["completions", shell]).await.ends_with(0).prints(&[word, "max-queue-latency"]);
    }
    traced_broker(&["completions", "abacus"]).await.ends_with(2).complains(&["abacus", "bash"]);
}

/// Completes as the shell does.
#[tokio::test]
async fn bash_completes_the_options_of_a_subcommand() {
    let script = traced_broker(&["completions", "bash"]).await.ends_with(0).out;
    let asking = "COMP_WORDS=(traced-broker verify --max); COMP_CWORD=2
        $(complete -p traced-broker | sed 's/.*-F \\([^ ]*\\).*/\\1/') traced-broker --max verify
        printf '%s ' \"${COMPREPLY[@]}\"";
    let output = std::process::Command::new("bash").args(["-c", &format!("{script}\n{asking}")]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "--max-queue-latency --max-clock-skew ");
}

#[tokio::test]
async fn two_brokers_are_compared() {
    let outcome = traced_broker(&["compare", "memory://a", "memory://b"]).await.ends_with(0);
    outcome.prints(&["nothing changes between memory://a and memory://b"]);
    let outcome = traced_broker(&["compare", "memory://a", "pigeon://me:topsecret@roof"]).await.ends_with(2);
    outcome.complains(&["cannot connect to the second broker", "unknown scheme"]).never_shows("topsecret");
}
