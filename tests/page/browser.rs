//! A headless browser that opens one document.

use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Functions that every test script may use.
const HARNESS: &str = r"
const press = (key, more = {}) => (document.activeElement || document.body).dispatchEvent(
    new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true, ...more }));
const row = () => document.querySelector('[aria-selected=true]');
const name = () => row() && row().querySelector('.name').textContent;
const rows = () => [...document.querySelectorAll('.row')];
const shown = () => rows().filter(row => row.checkVisibility({ contentVisibilityAuto: false })).length;
const panel = () => document.querySelector('#details').innerText;
const bar = (row, part) => row.querySelector('.bar').getBoundingClientRect()[part];
";

/// Opens the page without its policy, runs `script` in it, and returns the result.
pub(crate) fn run(page: &str, script: &str) -> Value {
    let policy = page.find("<meta http-equiv").unwrap();
    let rest = &page[policy..];
    let free = format!("{}{}", &page[..policy], &rest[rest.find('>').unwrap() + 1..]);
    run_within_policy(&free, &format!("{HARNESS}\nreturn (() => {{ {script} }})();"))
}

/// Runs `script` in the unchanged page; returns `null` if the page's policy blocks it.
pub(crate) fn run_within_policy(page: &str, script: &str) -> Value {
    let added = format!(
        "<script>(() => {{ const value = (() => {{ {script} }})(); const made = document.createElement('pre'); \
         made.id = 'result'; made.textContent = btoa(unescape(encodeURIComponent(JSON.stringify(value ?? null)))); \
         document.body.append(made); }})();</script></body>"
    );
    let page = page.replace("</body>", &added);
    let dump = String::from_utf8(open(&page, "", &["--dump-dom"]).stdout).unwrap();
    let Some((_, rest)) = dump.split_once("<pre id=\"result\">") else { return Value::Null };
    let encoded = rest.split_once("</pre>").unwrap().0;
    serde_json::from_slice(&STANDARD.decode(encoded).unwrap()).unwrap()
}

/// Returns the loaded document as the browser has it. `hash` is the part of the address after `#`.
pub(crate) fn dump(page: &str, hash: &str) -> String {
    String::from_utf8(open(page, hash, &["--dump-dom"]).stdout).unwrap()
}

/// Takes a picture, light or dark.
pub(crate) fn picture(page: &str, hash: &str, dark: bool, file: &Path) {
    let to = format!("--screenshot={}", file.display());
    let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!dark));
    open(page, hash, &["--window-size=1280,800", "--hide-scrollbars", &scheme, &to]);
    assert!(file.metadata().unwrap().len() > 10_000, "{} has something on it", file.display());
}

fn open(page: &str, hash: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    std::fs::write(&file, page).unwrap();
    let mut command = Command::new("chromium");
    // The sandbox does not work for root; the only document opened is the test's.
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
    command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
    command.args(arguments).arg(format!("file://{}#{hash}", file.display()));
    let output = command.output().expect("chromium is installed: tests/testbed/chromium install");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}
