//! Outcomes of publishes, and their spans.

use std::time::Duration;

use opentelemetry::trace::TraceContextExt;

use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, refused};
use crate::conformance::cases::refusing::Refusing;
use crate::conformance::failure::{Checked, check, check_eq};
use crate::conformance::spans::{attribute_text, check_child, check_failed, check_succeeded};
use crate::conformance::watched::Watched;
use crate::error::ErrorKind;
use crate::message::Message;

crate::conformance::case::cases! { Trace:
    b30_a_failed_publish_is_on_its_span []
        "A publish that is refused has a span with the status, the kind and text of the error, in the caller's trace.";
    b30_a_failed_message_of_a_batch_is_on_its_spans []
        "In a batch, the span of the refused message has the error, the others have none, and the send span says that one failed.";
    b30_the_send_span_lasts_until_the_confirm []
        "The send span ends after the broker has answered, for a single message and for a batch.";
    b30_the_span_of_a_cancelled_publish_ends []
        "The span of a cancelled publish ends, marked so.";
}

const REFUSED: &str = "refused";

async fn b30_a_failed_publish_is_on_its_span(case: &CaseContext) -> Checked {
    let broker = case.traced(Refusing::payload(case.driver().await?, REFUSED));
    let root = case.root("POST /orders");
    let within = || Message::new(REFUSED).context(root.clone());
    let error = refused("the message", broker.publish(&case.topic, within()).await)?;
    check_eq!(error.kind(), ErrorKind::Rejected, "the kind of {error}");
    let error = refused("the name", broker.publish("not a name", within()).await)?;
    check_eq!(error.kind(), ErrorKind::InvalidConfig, "the kind of {error}");
    broker.close().await?;
    let error = refused("after closing", broker.publish(&case.topic, within()).await)?;
    check_eq!(error.kind(), ErrorKind::Closed, "the kind of {error}");
    root.span().end();
    let sends = case.spans.named(&case.send_name());
    check_eq!(sends.len(), 2, "the number of send spans");
    check_failed(&sends[0], "rejected", "the broker refuses the message")?;
    check_failed(&sends[1], "closed", "closed")?;
    // An invalid name of a topic is not part of the span's name.
    let nameless = case.spans.one("send invalid")?;
    check_failed(&nameless, "invalid_config", "not a name")?;
    for send in [&sends[0], &sends[1], &nameless] {
        check_child(send, root.span().span_context())?;
    }
    Ok(())
}

async fn b30_a_failed_message_of_a_batch_is_on_its_spans(case: &CaseContext) -> Checked {
    let broker = case.traced(Refusing::payload(case.driver().await?, REFUSED));
    let messages = ["a", REFUSED, "c"].map(Message::new);
    let results = broker.publish_batch(&case.topic, messages.into()).await;
    let refused: Vec<bool> = results.iter().map(Result::is_err).collect();
    check_eq!(refused, [false, true, false], "which messages are refused");
    broker.close().await?;
    let creates = case.spans.named(&format!("create {}", case.topic));
    check_eq!(creates.len(), 3, "the number of create spans");
    let (failed, fine): (Vec<_>, Vec<_>) =
        creates.iter().partition(|span| !attribute_text(span, "error.type").is_empty());
    check_eq!((failed.len(), fine.len()), (1, 2), "how many create spans failed, and how many did not");
    check_failed(failed[0], "rejected", "the broker refuses the message")?;
    fine.into_iter().try_for_each(check_succeeded)?;
    check_failed(&case.spans.one(&case.send_name())?, "rejected", "the broker refuses the message")
}

async fn b30_the_send_span_lasts_until_the_confirm(case: &CaseContext) -> Checked {
    let late = Duration::from_millis(50);
    let (driver, watch) = Watched::late(case.driver().await?, late);
    let broker = case.traced(driver);
    broker.publish(&case.topic, Message::new("alone")).await?;
    for result in broker.publish_batch(&case.topic, vec![Message::new("a"), Message::new("b")]).await {
        result?;
    }
    broker.close().await?;
    let confirmed = watch.confirmed();
    check_eq!(confirmed.len(), 3, "the number of confirms");
    let sends = case.spans.named(&case.send_name());
    check_eq!(sends.len(), 2, "the number of send spans");
    check!(sends[0].end_time >= confirmed[0], "the span of a message lasts until its confirm");
    let last = confirmed[1].max(confirmed[2]);
    check!(sends[1].end_time >= last, "the span of a batch lasts until its last confirm");
    for create in case.spans.named(&format!("create {}", case.topic)) {
        let lasted = create.end_time.duration_since(create.start_time).unwrap_or_default();
        check!(lasted >= late, "the span of each message of a batch lasts until its confirm: {lasted:?}");
    }
    Ok(())
}

async fn b30_the_span_of_a_cancelled_publish_ends(case: &CaseContext) -> Checked {
    let (driver, _) = Watched::late(case.driver().await?, Duration::from_secs(600));
    let (broker, reader) = (case.traced(driver.clone()), case.broker().await?);
    let mut deliveries = reader.subscribe(case.group("g")).await?;
    // The topic must exist before the clock starts.
    driver.declare(&crate::message::Topic::new(&case.topic)?).await?;
    let publishing = broker.publish(&case.topic, Message::new("given up"));
    check!(tokio::time::timeout(Duration::from_millis(300), publishing).await.is_err(), "no answer has come yet");
    // The message had been sent, and is delivered like any other.
    case.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    let (send, process) = (case.spans.one(&case.send_name())?, case.spans.one(&case.process_name())?);
    check_failed(&send, "cancelled", "cancelled")?;
    check_child(&process, &send.span_context)
}
