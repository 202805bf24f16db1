//! Messages with planted damage: the receiver names the damaged part.

use traced_broker::Headers;

use crate::recipe::{Fate, Flaw, Id, Recipe, Seen, Trace, fate, inspect};

const SEED: u64 = 7;

/// Inspects a message after a change of its parts.
fn inspected(change: impl FnOnce(&mut Recipe)) -> (Option<Id>, Vec<Flaw>) {
    let mut recipe = Recipe::of(SEED, Id(1, 2));
    change(&mut recipe);
    let mut headers = Headers::new();
    headers.append("chaos-note", &recipe.note);
    let key = Some(recipe.key.as_bytes());
    inspect(SEED, &Seen { payload: &recipe.payload, key, headers: &headers, trace: recipe.trace.clone() })
}

#[test]
fn an_intact_message_has_no_flaw() {
    assert_eq!(inspected(|_| {}), (Some(Id(1, 2)), Vec::new()));
}

#[test]
fn one_changed_byte_is_noticed_wherever_it_is() {
    let size = Recipe::of(SEED, Id(1, 2)).payload.len();
    for at in (0..size).step_by(37).chain([size - 1]) {
        let (id, flaws) = inspected(|recipe| recipe.payload[at] ^= 1);
        assert_eq!((id, flaws), (None, vec![Flaw::Payload]), "at {at}");
    }
    assert_eq!(inspected(|recipe| recipe.payload.truncate(recipe.payload.len() - 1)).0, None, "one byte is missing");
    assert_eq!(inspected(|recipe| recipe.payload.push(0)).0, None, "one byte more");
}

#[test]
fn another_key_or_header_is_noticed() {
    assert_eq!(inspected(|recipe| recipe.key.push('x')).1, [Flaw::Key]);
    assert_eq!(inspected(|recipe| recipe.note.push('x')).1, [Flaw::Header]);
}

#[test]
fn the_context_of_another_message_is_noticed() {
    let other = Recipe::of(SEED, Id(1, 3)).trace;
    let changes: [fn(&mut Trace, Trace); 3] = [
        |own, other| own.traceparent = other.traceparent,
        |own, other| own.tracestate = other.tracestate,
        |own, other| own.baggage = other.baggage,
    ];
    for change in changes {
        let (id, flaws) = inspected(|recipe| change(&mut recipe.trace, other.clone()));
        assert_eq!(id, Some(Id(1, 2)));
        assert!(matches!(&flaws[..], [Flaw::Context(_)]), "{flaws:?}");
    }
}

#[test]
fn a_payload_of_another_run_has_no_identity() {
    let other = Recipe::of(SEED + 1, Id(1, 2)).payload;
    assert_eq!(inspected(|recipe| recipe.payload = other).0, None);
}

/// The context is carried by OpenTelemetry's types; nothing of it is lost there.
#[test]
fn a_context_survives_reading_and_writing() {
    for number in 0..200 {
        let trace = Recipe::of(SEED, Id(0, number)).trace;
        assert_eq!(Trace::of(&trace.context()), trace);
    }
}

#[test]
fn one_seed_draws_one_set_of_messages() {
    for number in 0..50 {
        let id = Id(3, number);
        assert_eq!(Recipe::of(SEED, id), Recipe::of(SEED, id));
        assert_ne!(Recipe::of(SEED, id).payload, Recipe::of(SEED + 1, id).payload);
        assert_eq!(fate(SEED, id, "plain"), fate(SEED, id, "plain"));
    }
}

#[test]
fn messages_have_the_sizes_and_fates_that_they_should() {
    let sizes = (0..3000).map(|number| Recipe::of(SEED, Id(0, number)).payload.len());
    let large = sizes.filter(|size| *size > 10_000).count();
    assert!((1..20).contains(&large), "{large} of 3000 are large");
    let fates: Vec<Fate> = (0..10_000).map(|number| fate(SEED, Id(0, number), "hand")).collect();
    let count = |wanted: Fate| fates.iter().filter(|fate| **fate == wanted).count();
    assert!((120..300).contains(&count(Fate::FailTwice)), "2 % fail twice");
    assert!((20..100).contains(&count(Fate::Reject)), "0.5 % are rejected");
    assert!((10..60).contains(&count(Fate::Drop)), "0.3 % are dropped");
}
