//! The example `delayed`.

use std::time::Duration;

use traced_broker::verify::{Kind, check};

use super::program::{Program, read};
use crate::support::program::example;

#[test]
fn a_delayed_message_is_a_trace_of_its_own_linked_to_who_sent_it() {
    let folder = tempfile::tempdir().unwrap();
    let spans = folder.path().join("spans.jsonl");
    let said = Program::start(&example("delayed"), &["--delay", "700", "--spans", spans.to_str().unwrap()]).finish();

    let traces = read(&spans);
    let report = check(&traces);
    assert!(report.is_whole(), "{report}\n{said}");
    let hops = traces.hops();
    let [hop] = &*hops else { panic!("one hop: {hops:?}") };
    let (send, process) = (hop.send.unwrap(), hop.process);
    assert_eq!((send.name.as_str(), process.name.as_str()), ("send reminders", "process reminders"));
    assert_eq!((process.kind, process.parent), (Kind::Consumer, None));
    assert_ne!(send.trace_id, process.trace_id);
    assert!(process.links.iter().any(|link| link.target.span_id == send.span_id));
    assert!(Duration::from_nanos(process.start - send.start) >= Duration::from_millis(700));

    for drawn in ["POST /reminders", "└ send reminders", "process reminders", "traces: 2 whole, 0 broken"] {
        assert!(said.contains(drawn), "no `{drawn}` in\n{said}");
    }
}
