//! The page loads no other resources, and runs only its own script.

use serde_json::json;

use crate::browser::{dump, run, run_within_policy};
use crate::build::{TRACE, span_id};
use crate::page;
use crate::scenes::order;

#[test]
fn its_own_script_runs_and_no_other() {
    let page = page(&order());
    let dumped = dump(&page, &format!("s-{TRACE}-{}", span_id(7)));
    assert!(dumped.contains("<h2>process notifications</h2>"), "the row of the address is chosen, details beside it");
    assert_eq!(run_within_policy(&page, "return 1;"), json!(null));
    assert_eq!(run(&page, "return 1;"), 1, "which this would have shown");
}

#[test]
fn hostile_names_do_nothing() {
    let evil = "</script><img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>";
    let mut spans = order();
    spans[1] = spans.remove(1).text("note", evil).text(evil, "x").error(evil, evil).set("name", json!(evil));
    let script = "while (!panel().includes('onerror')) press('ArrowDown'); \
                  return [document.title, document.querySelectorAll('img').length, panel().includes(\"<img src=x\")];";
    assert_eq!(run(&page(&spans), script), json!(["POST /orders", 0, true]));
}

#[test]
fn nothing_is_loaded() {
    let script = "return performance.getEntriesByType('resource').map(entry => entry.name);";
    assert_eq!(run(&page(&order()), script), json!([]));
}

#[test]
fn the_tree_can_be_read_aloud() {
    let script = r"
        press('ArrowDown');
        const tree = document.querySelector('[role=treegrid]');
        const stray = rows().filter(row => row.closest('[role=treegrid]') !== tree || row.getAttribute('role') !== 'row');
        const focusable = rows().filter(row => row.tabIndex === 0).length;
        return { stray: stray.length, focusable, levels: rows().map(row => row.ariaLevel).join(' ') };";
    let seen = run(&page(&order()), script);
    assert_eq!((&seen["stray"], &seen["focusable"]), (&json!(0), &json!(1)), "one row is in the order of tabs");
    assert_eq!(seen["levels"], "1 2 3 3 4 4 5 5 6 6 4");
}
