//! The whole order system in one process, judged while it runs.

use crate::judge::post;
use crate::shop::{end, flaky, hopeless, plain};
use crate::support::orders::Running;
use crate::support::{Jaeger, send_signal};

#[test]
fn a_live_system_is_found_whole() {
    let jaeger = Jaeger::start();
    let mut running = Running::start(&["--serve", "--port", "0", "--otlp", &jaeger.otlp_endpoint()]);
    let line = running.wait_for_output("API at");
    let url = line.split_once("API at ").expect("the address").1.to_owned();
    let judged = std::panic::catch_unwind(|| {
        let delivered = ["--expect", "process notifications"];
        post(&jaeger, &url, &plain("ORD-1"), &delivered).has_to_be_whole();
        post(&jaeger, &url, &flaky("ORD-2"), &delivered).has_to_be_whole();
        post(&jaeger, &url, &hopeless("ORD-3"), &["--expect", "process orders.dead"]).has_to_be_whole();
    });
    if let Err(failed) = judged {
        end(&mut running.child);
        std::panic::resume_unwind(failed);
    }
    assert!(send_signal("INT", running.child.id()));
    let finished = running.wait();
    assert_eq!(finished.status.code(), Some(0), "{}", finished.all());
    assert!(!finished.stdout.contains("did not get to"), "{}", finished.all());
}
