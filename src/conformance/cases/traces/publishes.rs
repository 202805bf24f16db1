//! How publishes end, and that their spans say so.

use std::time::Duration;

use opentelemetry::trace::TraceContextExt;

use super::super::super::failure::{Checked, check, check_eq};
use super::super::super::spans::{attribute_text, check_child, check_failed, check_succeeded};
use super::super::super::watched::Watched;
use super::super::super::world::{World, refused};
use super::super::refusing::Refusing;
use crate::broker::TracedBroker;
use crate::error::ErrorKind;
use crate::message::Message;

super::super::super::case::cases! { Trace:
    b30_a_failed_publish_is_on_its_span []
        "A publish that is refused has a span with the status, the kind of error and the words, in the caller's trace.";
    b30_a_failed_message_of_a_batch_is_on_its_spans []
        "Of a batch, the span of the message that is refused has the error, the others have none, and the one that sends says that one failed.";
    b30_the_send_span_lasts_until_the_confirm []
        "The send span ends after the broker has answered, alone and in a batch.";
    b30_the_span_of_a_cancelled_publish_ends []
        "The span of a publish that is given up ends, marked so.";
}

const REFUSED: &str = "refused";

async fn b30_a_failed_publish_is_on_its_span(world: &World) -> Checked {
    let broker = world.traced(Refusing::payload(world.driver().await?, REFUSED));
    let root = world.root("POST /orders");
    let within = || Message::new(REFUSED).context(root.clone());
    let error = refused("the message", broker.publish(&world.topic, within()).await)?;
    check_eq!(error.kind(), ErrorKind::Rejected, "the kind of {error}");
    let error = refused("the name", broker.publish("not a name", within()).await)?;
    check_eq!(error.kind(), ErrorKind::InvalidConfig, "the kind of {error}");
    broker.close().await?;
    let error = refused("after closing", broker.publish(&world.topic, within()).await)?;
    check_eq!(error.kind(), ErrorKind::Closed, "the kind of {error}");
    root.span().end();
    let sends = world.spans.named(&world.send_name());
    check_eq!(sends.len(), 2, "the number of send spans");
    check_failed(&sends[0], "rejected", "the broker refuses the message")?;
    check_failed(&sends[1], "closed", "closed")?;
    // What may be anything is no part of a name.
    let nameless = world.spans.one("send invalid")?;
    check_failed(&nameless, "invalid_config", "not a name")?;
    for send in [&sends[0], &sends[1], &nameless] {
        check_child(send, root.span().span_context())?;
    }
    Ok(())
}

async fn b30_a_failed_message_of_a_batch_is_on_its_spans(world: &World) -> Checked {
    let broker = world.traced(Refusing::payload(world.driver().await?, REFUSED));
    let messages = ["a", REFUSED, "c"].map(Message::new);
    let results = broker.publish_batch(&world.topic, messages.into()).await;
    let refused: Vec<bool> = results.iter().map(Result::is_err).collect();
    check_eq!(refused, [false, true, false], "which messages are refused");
    broker.close().await?;
    let creates = world.spans.named(&format!("create {}", world.topic));
    check_eq!(creates.len(), 3, "the number of create spans");
    let (failed, fine): (Vec<_>, Vec<_>) =
        creates.iter().partition(|span| !attribute_text(span, "error.type").is_empty());
    check_eq!((failed.len(), fine.len()), (1, 2), "how many create spans failed, and how many did not");
    check_failed(failed[0], "rejected", "the broker refuses the message")?;
    fine.into_iter().try_for_each(check_succeeded)?;
    check_failed(&world.spans.one(&world.send_name())?, "rejected", "the broker refuses the message")
}

async fn b30_the_send_span_lasts_until_the_confirm(world: &World) -> Checked {
    let late = Duration::from_millis(50);
    let (driver, watch) = Watched::late(world.driver().await?, late);
    let broker = world.traced(driver);
    broker.publish(&world.topic, Message::new("alone")).await?;
    for result in broker.publish_batch(&world.topic, vec![Message::new("a"), Message::new("b")]).await {
        result?;
    }
    broker.close().await?;
    let confirmed = watch.confirmed();
    check_eq!(confirmed.len(), 3, "the number of confirms");
    let sends = world.spans.named(&world.send_name());
    check_eq!(sends.len(), 2, "the number of send spans");
    check!(sends[0].end_time >= confirmed[0], "the span of a message lasts until its confirm");
    let last = confirmed[1].max(confirmed[2]);
    check!(sends[1].end_time >= last, "the span of a batch lasts until its last confirm");
    for create in world.spans.named(&format!("create {}", world.topic)) {
        let lasted = create.end_time.duration_since(create.start_time).unwrap_or_default();
        check!(lasted >= late, "the span of each message of a batch lasts until its confirm: {lasted:?}");
    }
    Ok(())
}

async fn b30_the_span_of_a_cancelled_publish_ends(world: &World) -> Checked {
    let (driver, _) = Watched::late(world.driver().await?, Duration::from_secs(600));
    let (broker, reader) = (world.traced(driver.clone()), world.broker().await?);
    let mut deliveries = reader.subscribe(world.group("g")).await?;
    // The topic is there before the clock runs.
    driver.declare(&crate::address::Topic::new(&world.topic)?).await?;
    let publishing = broker.publish(&world.topic, Message::new("given up"));
    check!(tokio::time::timeout(Duration::from_millis(300), publishing).await.is_err(), "no answer has come yet");
    // It had left, and is a message like any other.
    world.handle(&mut deliveries, |_| async { Ok(()) }).await?;
    let (send, process) = (world.spans.one(&world.send_name())?, world.spans.one(&world.process_name())?);
    check_failed(&send, "cancelled", "cancelled")?;
    check_child(&process, &send.span_context)
}
