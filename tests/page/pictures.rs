//! The pictures of the documentation.

use std::path::Path;

use traced_broker::verify::{Page, check};

use crate::browser::picture;
use crate::build::{TRACE, span_id, traces};
use crate::scenes::{order, retried};

/// With `UPDATE_SNAPSHOTS=1` the pictures replace those of the documentation; otherwise the test
/// only takes them.
#[test]
fn light_and_dark() {
    let folder = tempfile::tempdir().unwrap();
    let update = std::env::var_os("UPDATE_SNAPSHOTS").is_some();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    let file = |name: &str| if update { docs.join(name) } else { folder.path().join(name) };
    for (name, spans, chosen, dark) in [("page-light.png", order(), 3, false), ("page-dark.png", retried(), 4, true)] {
        let traces = traces(&spans);
        let report = check(&traces);
        let page = Page::new(traces.iter().next().unwrap()).within(&traces).report(&report).to_string();
        picture(&page, &format!("s-{TRACE}-{}", span_id(chosen)), dark, &file(name));
    }
}
