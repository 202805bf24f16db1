//! Navigation by keyboard and pointer.

use serde_json::json;

use crate::browser::run;
use crate::build::{JOB, TRACE, span_id};
use crate::page;
use crate::scenes::{job, order, retried};

#[test]
fn arrows_move_fold_and_unfold() {
    let script = r"
        const all = shown(), seen = [name()];
        press('ArrowDown'); seen.push(name());
        press('ArrowDown'); seen.push(name());
        press('ArrowUp'); press('ArrowLeft');
        const folded = [shown(), row().getAttribute('aria-expanded')];
        press('ArrowDown'); seen.push(name());
        press('ArrowRight');
        const open = shown();
        press('ArrowRight'); seen.push(name());
        press('ArrowLeft'); seen.push(name());
        press('End'); seen.push(name());
        press('Home'); seen.push(name());
        return { all, seen, folded, open };";
    let seen = run(&page(&order()), script);
    let names = [
        "POST /orders order-api",
        "send orders order-api",
        "in queue orders",
        // No row is left below the folded one.
        "send orders order-api",
        "in queue orders",
        "send orders order-api",
        "INSERT shipments fulfillment-worker",
        "POST /orders order-api",
    ];
    assert_eq!(seen["seen"], json!(names));
    assert_eq!((&seen["all"], &seen["open"]), (&json!(11), &json!(11)));
    assert_eq!(seen["folded"], json!([2, "false"]));
}

#[test]
fn what_is_folded_within_stays_folded() {
    let script = r"
        const all = shown();
        press('ArrowDown'); press('ArrowDown'); press('ArrowDown'); press('ArrowLeft');
        const inner = shown();
        press('Home'); press('ArrowLeft'); press('ArrowRight');
        const again = shown();
        press('e'); const none = shown();
        press('e'); const everything = shown();
        return { all, inner, again, none, everything };";
    let seen = run(&page(&order()), script);
    assert_eq!(seen, json!({ "all": 11, "inner": 4, "again": 4, "none": 1, "everything": 11 }));
}

#[test]
fn problems_and_waits_are_found_one_after_the_other() {
    let script = r"
        const first = name(), seen = [];
        press('n'); seen.push(name()); press('N'); seen.push(name());
        press('Home'); press('w'); seen.push(name()); press('w'); seen.push(name()); press('W'); seen.push(name());
        return { first, seen, problems: document.querySelector('#tools button').textContent };";
    let seen = run(&page(&retried()), script);
    let attempt = |number| format!("process orders attempt {number} · fulfillment-worker");
    assert_eq!(seen["first"], attempt(1), "a page begins at its first problem");
    assert_eq!(seen["seen"], json!([attempt(2), attempt(1), "in queue orders", "in queue orders", "in queue orders"]));
    assert_eq!(seen["problems"], "2 problems");
}

#[test]
fn the_details_are_those_of_the_chosen_row() {
    let script = r"
        const root = panel();
        press('w'); const wait = panel();
        press('ArrowDown'); const process = panel();
        return { root, wait, process };";
    let seen = run(&page(&order()), script);
    let has = |what: &str, words: &[&str]| {
        let text = seen[what].as_str().unwrap();
        words.iter().for_each(|word| assert!(text.contains(word), "no {word:?} in {text}"));
    };
    has("root", &["POST /orders", "order-api · server", "2.10 ms", "at the start"]);
    has("wait", &["12.3 ms in the queue", "topic\norders", "by the sender"]);
    has("process", &["consumer", "14.1 ms after the start", "send orders (order-api)", "messaging.kafka.offset\n42"]);
}

#[test]
fn a_link_is_followed_to_another_trace_and_back() {
    let script = r"
        const begun = name();
        while (!document.querySelector('#details ul a')) press('ArrowDown');
        const from = name();
        press('l');
        const to = [row().id, row().closest('section').id];
        press('Backspace');
        return { begun, from, to, back: name(), hash: location.hash };";
    let seen = run(&page(&[job(), order()].concat()), script);
    // It does not matter here which of the two traces the page shows.
    let ends = [format!("s-{TRACE}-"), format!("s-{JOB}-{}", span_id(21))];
    let to = seen["to"][0].as_str().unwrap();
    assert!(ends.iter().any(|end| to.starts_with(end)), "{seen}");
    assert_eq!(seen["back"], seen["from"]);
    assert!(seen["hash"].as_str().unwrap().starts_with("#s-"));
}

#[test]
fn searching_marks_and_steps_through_what_was_found() {
    let script = r"
        press('/');
        const field = document.activeElement;
        field.value = 'KAFKA.OFFSET';
        field.dispatchEvent(new Event('input'));
        const one = [name(), document.querySelector('#count').textContent];
        field.value = 'orders';
        field.dispatchEvent(new Event('input'));
        const many = document.querySelectorAll('.found').length, first = name();
        press('Enter'); const second = name();
        press('Enter', { shiftKey: true }); const again = name();
        press('Escape');
        return { one, many, first, second, again, left: document.querySelectorAll('.found').length, focus: document.activeElement === row() };";
    let seen = run(&page(&order()), script);
    assert_eq!(seen["one"], json!(["process orders fulfillment-worker", "1 found"]), "in attributes, in any case");
    assert!(seen["many"].as_u64().unwrap() >= 4, "{seen}");
    assert_ne!(seen["first"], seen["second"]);
    assert_eq!(seen["again"], seen["first"]);
    assert_eq!((&seen["left"], &seen["focus"]), (&json!(0), &json!(true)));
}

#[test]
fn zooming_shows_a_part_of_the_time() {
    let script = r"
        Element.prototype.setPointerCapture = () => {};
        const wide = rows()[3], ticks = document.querySelector('.ticks'), box = ticks.getBoundingClientRect();
        const before = [bar(wide, 'left'), bar(wide, 'width')];
        press('ArrowDown'); press('ArrowDown'); press('ArrowDown'); press('z');
        const zoomed = bar(wide, 'width'), labels = ticks.innerText;
        press('0');
        const after = [bar(wide, 'left'), bar(wide, 'width')];
        press('+'); const plus = bar(wide, 'width'); press('-'); const minus = bar(wide, 'width');
        press('0');
        const to = (type, part) => ticks.dispatchEvent(
            new PointerEvent(type, { pointerId: 1, bubbles: true, clientX: box.left + part * (box.width - 72) }));
        const drag = () => { to('pointerdown', 0.25); to('pointermove', 0.6); to('pointerup', 0.75); };
        drag(); const dragged = bar(wide, 'width');
        drag(); const again = [bar(wide, 'left') - box.left, bar(wide, 'width')];
        const place = Number(wide.querySelector('.bar').style.getPropertyValue('--a'));
        return { before, zoomed, labels, after, plus, minus, dragged, again, axis: box.width - 72, place };";
    let seen = run(&page(&order()), script);
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let width = number(&seen["before"][1]);
    assert!(number(&seen["zoomed"]) > 3.0 * width, "{seen}");
    assert_eq!(seen["before"], seen["after"], "0 goes back");
    assert!((number(&seen["plus"]) / width - 2.0).abs() < 0.05 && (number(&seen["minus"]) / width - 1.0).abs() < 0.05);
    assert!((number(&seen["dragged"]) / width - 2.0).abs() < 0.05, "{seen}");
    // The middle half of the middle half begins at three eighths.
    let left = (number(&seen["place"]) - 0.375) * 4.0 * number(&seen["axis"]);
    assert!((number(&seen["again"][1]) / width - 4.0).abs() < 0.1, "{seen}");
    assert!((number(&seen["again"][0]) - left).abs() < 1.5, "at {left}: {seen}");
    assert!(seen["labels"].as_str().unwrap().contains("ms"), "the times follow");
}

#[test]
fn keys_are_explained_and_the_colours_change() {
    let script = r"
        const colour = () => getComputedStyle(document.body).backgroundColor;
        const first = colour(); press('d'); const second = colour(); press('d');
        press('?'); const open = document.querySelector('#help').open, before = name();
        press('ArrowDown');
        return { first, second, third: colour(), open, stays: name() === before };";
    let seen = run(&page(&order()), script);
    assert_ne!(seen["first"], seen["second"]);
    assert_eq!(seen["first"], seen["third"]);
    assert_eq!((&seen["open"], &seen["stays"]), (&json!(true), &json!(true)));
}

#[test]
fn a_click_chooses_and_folds() {
    let script = r"
        const click = (row, x) => row.querySelector('.name').dispatchEvent(
            new MouseEvent('click', { bubbles: true, clientX: row.getBoundingClientRect().left + x }));
        const second = rows()[1];
        click(second, 200); const chosen = name(), all = shown();
        click(second, 15); const folded = shown();
        click(second, 15);
        return { chosen, all, folded, open: shown() };";
    let seen = run(&page(&order()), script);
    assert_eq!(seen, json!({ "chosen": "send orders order-api", "all": 11, "folded": 2, "open": 11 }));
}
