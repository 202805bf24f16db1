//! The page for the browser: complete, well-formed, and safe with any name. Its script is tested in
//! a browser.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::Digest as _;
use traced_broker::verify::{Page, Traces, check};

use crate::build::{JOB, TRACE, internal, server, span_id, traces, without};
use crate::markup::{Element, read};
use crate::scenes::{batch, dead_lettered, job, order, retried, unicode};

const SCRIPT: &str = include_str!("../../src/verify/page/page.js");

/// Returns the page of the first trace.
fn page_of(traces: &Traces) -> String {
    let report = check(traces);
    Page::new(traces.iter().next().unwrap()).within(traces).report(&report).to_string()
}

/// Returns the elements of a page, without script and style.
pub(crate) fn elements_of(page: &str) -> Result<Vec<Element>, String> {
    let (from, to) = (page.find("<header>").unwrap(), page.find("</main>").unwrap());
    read(&format!("<page>{}</main></page>", &page[from..to]))
}

fn details_of(page: &str) -> Vec<Value> {
    let (_, json) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    serde_json::from_str(json.split_once("</script>").unwrap().0).unwrap()
}

fn rows_of<'e>(elements: &'e [Element], class: &str) -> Vec<&'e Element> {
    elements.iter().filter(|element| element.has_class("row") && element.has_class(class)).collect()
}

#[test]
fn every_span_has_a_row_and_its_details() {
    for spans in [order(), retried(), dead_lettered(), batch(), unicode(), [order(), job()].concat()] {
        let page = page_of(&traces(&spans));
        let (elements, details) = (elements_of(&page).unwrap(), details_of(&page));
        let shown = rows_of(&elements, "span");
        assert_eq!(shown.len(), spans.len());
        for span in &spans {
            let text = |field: &str| span.json[field].as_str().unwrap();
            let id = format!("s-{}-{}", text("traceId"), text("spanId"));
            let row = shown.iter().find(|row| row.get("id") == Some(&id)).unwrap();
            let details = &details[row.get("data-i").unwrap().parse::<usize>().unwrap()];
            assert_eq!(details["span"], text("spanId"));
            assert_eq!(details["parent"]["span"].as_str().unwrap_or_default(), text("parentSpanId"));
            assert_eq!(details["links"].as_array().unwrap().len(), span.json["links"].as_array().unwrap().len());
            let attributes = span.json["attributes"].as_array().unwrap().len();
            assert_eq!(details["attributes"].as_object().unwrap().len(), attributes);
        }
    }
}

#[test]
fn the_wait_in_the_queue_is_a_row_between_send_and_process() {
    let page = page_of(&traces(&order()));
    let (elements, details) = (elements_of(&page).unwrap(), details_of(&page));
    let waits = rows_of(&elements, "wait");
    assert_eq!(waits.len(), 2);
    let number: usize = waits[0].get("data-i").unwrap().parse().unwrap();
    assert_eq!(details[number]["duration"], "12.3 ms");
    assert_eq!((&details[number]["topic"], &details[number]["measured"]), (&json!("orders"), &json!(true)));
    let position = |wanted: &Element| elements.iter().position(|element| std::ptr::eq(element, wanted)).unwrap();
    let bar = &elements[position(waits[0])..].iter().find(|element| element.has_class("bar")).unwrap();
    // The axis has 48.2 ms; the message waited from 1.8 to 14.1 ms.
    assert_eq!(bar.get("style").unwrap(), format!("--a:{:.6};--w:{:.6}", 1.8 / 48.2, 12.3 / 48.2));
    assert_eq!(rows_of(&elements_of(&page_of(&traces(&retried()))).unwrap(), "again").len(), 2);
}

#[test]
fn links_lead_to_rows_of_the_page() {
    let page = page_of(&traces(&[order(), job()].concat()));
    let elements = elements_of(&page).unwrap();
    let ids: BTreeSet<&str> = elements.iter().filter_map(|element| element.get("id")).collect();
    let links: Vec<&str> = elements.iter().filter_map(|element| element.get("href")).collect();
    assert!(links.contains(&&*format!("#s-{JOB}-{}", span_id(21))), "to the job: {links:?}");
    assert!(links.iter().any(|link| link.starts_with(&format!("#s-{TRACE}-"))), "and back: {links:?}");
    for link in links {
        assert!(ids.contains(link.strip_prefix('#').unwrap()), "{link} leads nowhere");
    }
}

#[test]
fn a_trace_without_a_link_is_not_shown() {
    let stranger = server("stranger", 99, "GET /", (0, 5)).in_trace(&"9".repeat(32));
    let page = page_of(&traces(&[order(), vec![stranger]].concat()));
    assert_eq!(rows_of(&elements_of(&page).unwrap(), "span").len(), 9);
    assert!(!page.contains("stranger"));
}

#[test]
fn nothing_is_said_against_a_linked_trace_whose_own_links_are_not_at_hand() {
    let mut job = job();
    job[0] = job.remove(0).links_to(&"9".repeat(32), 5, &[]);
    let all = traces(&[order(), job].concat());
    let (report, order, job) =
        (check(&all), all.get(TRACE.parse().unwrap()).unwrap(), all.get(JOB.parse().unwrap()).unwrap());
    let page = |trace| Page::new(trace).within(&all).report(&report).to_string();
    assert!(page(job).contains("broken") && page(job).contains("not exported"), "on its own page it is");
    assert!(
        page(order).contains("✓ whole") && !page(order).contains("broken") && !page(order).contains("not exported")
    );
}

#[test]
fn what_is_wrong_stands_above_and_leads_to_its_row() {
    let page = page_of(&traces(&without(order(), 2)));
    let elements = elements_of(&page).unwrap();
    let listed: Vec<&str> = elements.iter().filter(|e| e.name == "a").map(|e| &*e.text).collect();
    assert!(listed.contains(&"parent not exported"), "{listed:?}");
    assert!(page.contains("✗ broken") && !page.contains("✓ whole"));
    assert!(!rows_of(&elements, "problem").is_empty());
    assert!(page_of(&traces(&order())).contains("✓ whole"));
}

#[test]
fn remarks_stand_for_the_verdict() {
    let traces = traces(&order());
    let page =
        Page::new(traces.iter().next().unwrap()).title("Order <7>").remark(false, "too <slow>\nby far").to_string();
    assert!(page.contains("<p class=\"remark bad\">too &lt;slow&gt;<br/>by far</p>"));
    assert!(page.contains("<title>Order &lt;7&gt;</title>") && page.contains("<h1>Order &lt;7&gt;</h1>"));
}

#[test]
fn more_than_asked_for_is_counted() {
    let traces = traces(&order());
    let page = Page::new(traces.iter().next().unwrap()).max_rows(4).to_string();
    let rows = rows_of(&elements_of(&page).unwrap(), "span").len();
    assert!(rows < 9 && page.contains(&format!("{} more spans not shown", 9 - rows)), "{rows} rows");
}

#[test]
fn nothing_in_a_trace_is_markup_or_script() {
    let evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\" onclick=\"alert(3)\u{202e}\n&lt;";
    let mut spans = order();
    spans[1] = spans.remove(1).text("note", evil).text(evil, "x").error(evil, evil).set("name", json!(evil));
    let page = page_of(&traces(&spans));
    assert_eq!((page.matches("<script").count(), page.matches("</script>").count()), (2, 2));
    assert!(!page.contains("<img") && !page.contains('\u{202e}'));
    assert!(elements_of(&page).unwrap().iter().all(|element| element.get("onclick").is_none()));
    let kept =
        details_of(&page).iter().any(|it| it["attributes"]["note"].as_str().is_some_and(|t| t.contains("alert(1)")));
    assert!(kept, "as text it is still there");
}

#[test]
fn long_values_are_cut_and_say_so() {
    let long = internal("w", 50, "long", (1, 2)).child_of(1).text("body", &"x".repeat(10_000));
    let spans = [order(), vec![long]].concat();
    let page = page_of(&traces(&spans));
    assert!(page.contains(" … and 5904 more characters") && !page.contains(&"x".repeat(5_000)));
}

/// `UPDATE_SNAPSHOTS=1 cargo test --test verify` rewrites it.
#[test]
fn the_policy_names_the_script() {
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(SCRIPT));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/verify/page/page.js.sha256");
        std::fs::write(path, format!("{hash}\n")).unwrap();
        return;
    }
    let page = page_of(&traces(&order()));
    assert!(page.contains(&format!("script-src 'sha256-{hash}'")), "UPDATE_SNAPSHOTS=1 cargo test --test verify");
    assert!(page.contains(&format!("<script>{SCRIPT}</script>")) && page.contains("default-src 'none'"));
}
