//! From one message to the next: publishing, forwarding and answering in handlers.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanKind, TraceContextExt};

use crate::broker::TracedBroker;
use crate::conformance::case_context::{CaseContext, text};
use crate::conformance::failure::{Checked, Failure, check_eq};
use crate::conformance::spans::{check_child, check_kind, check_linked};
use crate::message::{HandlerError, Message, Received};
use crate::runtime::TracedBrokerExt;

crate::conformance::case::cases! { Trace:
    b20_a_publish_takes_the_callers_context []
        "A received message that is published again gets the context of the caller, and keeps no part of its old one.";
    b20_a_forward_keeps_the_messages_context []
        "A forwarded message keeps its creation context, and the span that forwards links it.";
    b33_what_a_handler_publishes_is_a_child_of_its_process_span []
        "Message in, message out: the next send span is a child of the process span, and all is one trace.";
    b33_a_request_and_its_reply_are_one_trace []
        "Request sent, processed, reply sent, processed: each is a child of the previous one.";
}

async fn b20_a_publish_takes_the_callers_context(case: &CaseContext) -> Checked {
    let onward = case.topic("onward");
    let broker = case.broker().await?;
    let mut first = broker.subscribe(case.group("g")).await?;
    let mut second = broker.subscribe(case.group_on(&onward, "g")).await?;
    let (sender, caller) = (case.root("sender"), case.root("caller"));
    broker.publish(&case.topic, Message::new("x").context(sender.clone())).await?;
    let delivery = case.next(&mut first).await?;
    let again = Message::from(delivery.message());
    delivery.process(|_| async { Ok(()) }).await?;
    // Outside the handler, in a context that is unrelated to the sender's.
    broker.publish(&onward, again.context(caller.clone())).await?;
    let delivery = case.next(&mut second).await?;
    check_eq!(delivery.message().headers().get_all("traceparent").count(), 1, "how many contexts the message carries");
    delivery.process(|_| async { Ok(()) }).await?;
    sender.span().end();
    caller.span().end();
    broker.close().await?;
    let (send, process) = (case.spans.one(&format!("send {onward}"))?, case.spans.one(&format!("process {onward}"))?);
    check_child(&send, caller.span().span_context())?;
    check_kind(&send, SpanKind::Producer)?;
    check_eq!(send.links.len(), 0, "how many links the span of a new message has");
    check_child(&process, &send.span_context)?;
    case.expect_whole_traces();
    Ok(())
}

async fn b20_a_forward_keeps_the_messages_context(case: &CaseContext) -> Checked {
    let onward = case.topic("onward");
    let broker = case.broker().await?;
    let mut first = broker.subscribe(case.group("g")).await?;
    let mut second = broker.subscribe(case.group_on(&onward, "g")).await?;
    broker.publish(&case.topic, Message::new("x").header("tenant", "acme")).await?;
    let (forwarder, to) = (broker.clone(), onward.clone());
    let forwards = |message: Received| async move { Ok(forwarder.forward(&to, Message::from(&message)).await?) };
    case.handle(&mut first, forwards).await?;
    let delivery = case.next(&mut second).await?;
    let headers = delivery.message().headers();
    check_eq!(headers.get_all("traceparent").count(), 1, "how many contexts the message carries");
    check_eq!(headers.get_str("tenant"), Some("acme"), "a header");
    delivery.process(|_| async { Ok(()) }).await?;
    broker.close().await?;

    case.spans.check_everything_resolves()?;
    let created = case.spans.one(&case.send_name())?;
    let processed = case.spans.one(&case.process_name())?;
    let forwarded = case.spans.one(&format!("send {onward}"))?;
    let last = case.spans.one(&format!("process {onward}"))?;
    check_kind(&forwarded, SpanKind::Client)?;
    check_linked(&forwarded, &created.span_context)?;
    check_child(&forwarded, &processed.span_context)?;
    check_child(&last, &created.span_context)?;
    check_linked(&last, &created.span_context)?;
    case.expect_whole_traces();
    Ok(())
}

async fn b33_what_a_handler_publishes_is_a_child_of_its_process_span(case: &CaseContext) -> Checked {
    let onward = case.topic("onward");
    let broker = case.broker().await?;
    let mut first = broker.subscribe(case.group("g")).await?;
    let mut second = broker.subscribe(case.group_on(&onward, "g")).await?;
    let root = case.root("POST /orders");
    broker.publish(&case.topic, Message::new("order").context(root.clone())).await?;
    let (publisher, to) = (broker.clone(), onward.clone());
    let handler = |_| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(publisher.publish(&to, Message::new("shipment")).await?)
    };
    case.handle(&mut first, handler).await?;
    case.handle(&mut second, |_| async { Ok(()) }).await?;
    root.span().end();
    broker.close().await?;
    let hops = [case.send_name(), case.process_name(), format!("send {onward}"), format!("process {onward}")];
    check_eq!(chain(case, &root), hops, "the chain of spans below the request");
    case.expect_whole_traces();
    Ok(())
}

async fn b33_a_request_and_its_reply_are_one_trace(case: &CaseContext) -> Checked {
    let (limit, replies) = (case.harness.patience(), case.topic("replies"));
    let desk = case.broker().await?;
    let handler = async |request: Received| {
        let doubled = text(request.payload()).repeat(2);
        desk.reply(&request, Message::new(doubled)).await?;
        Ok::<_, HandlerError>(())
    };
    let root = case.root("ask");
    let answering = desk.consume(case.group("desk"), handler).subscribed().await?;
    let asking = async {
        let requester = case.broker().await?.requester(&replies).await?;
        let reply = requester.request(&case.topic, Message::new("a").context(root.clone()), limit).await?;
        check_eq!(text(reply.payload()), "aa", "the reply");
        Checked::Ok(())
    };
    let mut asked = Err(Failure::new("the request was not even begun"));
    answering.run_until(async { asked = asking.await }).await?;
    asked?;
    root.span().end();
    let hops = [case.send_name(), case.process_name(), format!("send {replies}"), format!("process {replies}")];
    // A span ends once its message is settled, which may be after the reply has arrived.
    let ended = async {
        while chain(case, &root) != hops {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = case.within("the end of every span of the request", ended).await;
    check_eq!(chain(case, &root), hops, "the chain of spans from the request to the reply");
    case.expect_whole_traces();
    ended
}

/// Returns the names of the spans below the root, each the first child of the previous one.
fn chain(case: &CaseContext, root: &Context) -> Vec<String> {
    let mut parent = root.span().span_context().span_id();
    let spans = case.spans.all();
    let mut names = Vec::new();
    while let Some(span) = spans.iter().find(|span| span.parent_span_id == parent) {
        names.push(span.name.to_string());
        parent = span.span_context.span_id();
    }
    names
}
