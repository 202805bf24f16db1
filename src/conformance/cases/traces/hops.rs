//! From one message to the next: what handlers publish, forward and answer.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanKind, TraceContextExt};

use super::super::super::failure::{Checked, Failure, check_eq};
use super::super::super::spans::{check_child, check_kind, check_linked};
use super::super::super::world::{World, text};
use crate::broker::TracedBroker;
use crate::broker_ext::TracedBrokerExt;
use crate::handler::HandlerError;
use crate::message::Message;
use crate::received::Received;

super::super::super::case::cases! { Trace:
    b20_a_publish_takes_the_callers_context []
        "A received message that is published again gets the context of the caller, and no trace of the one it came with.";
    b20_a_forward_keeps_the_messages_context []
        "A forwarded message keeps its creation context, and the span that forwards links it.";
    b33_what_a_handler_publishes_is_a_child_of_its_process_span []
        "Message in, message out: the next send span is a child of the process span, and all is one trace.";
    b33_a_request_and_its_reply_are_one_trace []
        "Request sent, processed, reply sent, processed: each is a child of the one before.";
}

async fn b20_a_publish_takes_the_callers_context(world: &World) -> Checked {
    let onward = world.topic("onward");
    let broker = world.broker().await?;
    let mut first = broker.subscribe(world.group("g")).await?;
    let mut second = broker.subscribe(world.group_on(&onward, "g")).await?;
    let (sender, caller) = (world.root("sender"), world.root("caller"));
    broker.publish(&world.topic, Message::new("x").context(sender.clone())).await?;
    let delivery = world.next(&mut first).await?;
    let again = Message::from(delivery.message());
    delivery.process(|_| async { Ok(()) }).await?;
    // Outside of the handler, in a context that has nothing to do with the sender's.
    broker.publish(&onward, again.context(caller.clone())).await?;
    let delivery = world.next(&mut second).await?;
    check_eq!(delivery.message().headers().get_all("traceparent").count(), 1, "how many contexts the message carries");
    delivery.process(|_| async { Ok(()) }).await?;
    sender.span().end();
    caller.span().end();
    broker.close().await?;
    let (send, process) = (world.spans.one(&format!("send {onward}"))?, world.spans.one(&format!("process {onward}"))?);
    check_child(&send, caller.span().span_context())?;
    check_kind(&send, SpanKind::Producer)?;
    check_eq!(send.links.len(), 0, "how many links the span of a new message has");
    check_child(&process, &send.span_context)?;
    world.expect_whole_traces();
    Ok(())
}

async fn b20_a_forward_keeps_the_messages_context(world: &World) -> Checked {
    let onward = world.topic("onward");
    let broker = world.broker().await?;
    let mut first = broker.subscribe(world.group("g")).await?;
    let mut second = broker.subscribe(world.group_on(&onward, "g")).await?;
    broker.publish(&world.topic, Message::new("x").header("tenant", "acme")).await?;
    let (forwarder, to) = (broker.clone(), onward.clone());
    let forwards = |message: Received| async move { Ok(forwarder.forward(&to, Message::from(&message)).await?) };
    world.handle(&mut first, forwards).await?;
    let delivery = world.next(&mut second).await?;
    let headers = delivery.message().headers();
    check_eq!(headers.get_all("traceparent").count(), 1, "how many contexts the message carries");
    check_eq!(headers.get_str("tenant"), Some("acme"), "a header");
    delivery.process(|_| async { Ok(()) }).await?;
    broker.close().await?;

    world.spans.check_everything_resolves()?;
    let created = world.spans.one(&world.send_name())?;
    let processed = world.spans.one(&world.process_name())?;
    let forwarded = world.spans.one(&format!("send {onward}"))?;
    let last = world.spans.one(&format!("process {onward}"))?;
    check_kind(&forwarded, SpanKind::Client)?;
    check_linked(&forwarded, &created.span_context)?;
    check_child(&forwarded, &processed.span_context)?;
    check_child(&last, &created.span_context)?;
    check_linked(&last, &created.span_context)?;
    world.expect_whole_traces();
    Ok(())
}

async fn b33_what_a_handler_publishes_is_a_child_of_its_process_span(world: &World) -> Checked {
    let onward = world.topic("onward");
    let broker = world.broker().await?;
    let mut first = broker.subscribe(world.group("g")).await?;
    let mut second = broker.subscribe(world.group_on(&onward, "g")).await?;
    let root = world.root("POST /orders");
    broker.publish(&world.topic, Message::new("order").context(root.clone())).await?;
    let (publisher, to) = (broker.clone(), onward.clone());
    let handler = |_| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(publisher.publish(&to, Message::new("shipment")).await?)
    };
    world.handle(&mut first, handler).await?;
    world.handle(&mut second, |_| async { Ok(()) }).await?;
    root.span().end();
    broker.close().await?;
    let hops = [world.send_name(), world.process_name(), format!("send {onward}"), format!("process {onward}")];
    check_eq!(chain(world, &root), hops, "the chain of spans below the request");
    world.expect_whole_traces();
    Ok(())
}

async fn b33_a_request_and_its_reply_are_one_trace(world: &World) -> Checked {
    let (limit, replies) = (world.harness.patience(), world.topic("replies"));
    let desk = world.broker().await?;
    let handler = async |request: Received| {
        let doubled = text(request.payload()).repeat(2);
        desk.reply(&request, Message::new(doubled)).await?;
        Ok::<_, HandlerError>(())
    };
    let root = world.root("ask");
    let answering = desk.consume(world.group("desk"), handler).subscribed().await?;
    let asking = async {
        let requester = world.broker().await?.requester(&replies).await?;
        let reply = requester.request(&world.topic, Message::new("a").context(root.clone()), limit).await?;
        check_eq!(text(reply.payload()), "aa", "the reply");
        Checked::Ok(())
    };
    let mut asked = Err(Failure::new("the request was not even begun"));
    answering.run_until(async { asked = asking.await }).await;
    asked?;
    root.span().end();
    let hops = [world.send_name(), world.process_name(), format!("send {replies}"), format!("process {replies}")];
    // A span ends once its message is settled, which may be after the reply is here.
    let ended = async {
        while chain(world, &root) != hops {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = world.within("the end of every span of the request", ended).await;
    check_eq!(chain(world, &root), hops, "the chain of spans from the request to the reply");
    world.expect_whole_traces();
    ended
}

/// The names of the spans below the root, each the first child of the one before.
fn chain(world: &World, root: &Context) -> Vec<String> {
    let mut parent = root.span().span_context().span_id();
    let spans = world.spans.all();
    let mut names = Vec::new();
    while let Some(span) = spans.iter().find(|span| span.parent_span_id == parent) {
        names.push(span.name.to_string());
        parent = span.span_context.span_id();
    }
    names
}
