//! The processes of the order system.

use std::process::Child;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::orders::Running;
use crate::support::send_signal;

/// Every role, in start order: readers before the services that send to them.
const ROLES: [&str; 4] = ["reconcile", "notify", "worker", "api"];

/// Four processes. Those still running are killed when it is dropped.
pub(crate) struct Shop {
    processes: Vec<(&'static str, Option<Running>)>,
    /// The address to which orders are posted.
    pub(crate) url: String,
    /// The role whose spans are lost on purpose.
    lossy: Option<String>,
    _jobs: TempDir,
}

impl Shop {
    /// Starts all roles over the broker and waits until they are ready; the process of one role may
    /// be told to misbehave.
    pub(crate) fn open(broker: &str, otlp: &str, cut: Option<(&str, &str)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let jobs = folder.path().join("jobs.db").to_str().unwrap().to_owned();
        let lossy = cut.filter(|(_, what)| *what == "not-exported").map(|(role, _)| role.to_owned());
        let mut shop = Self { processes: Vec::new(), url: String::new(), lossy, _jobs: folder };
        for role in ROLES {
            let mut arguments =
                vec!["--role", role, "--broker", broker, "--otlp", otlp, "--port", "0", "--jobs", &jobs];
            if let Some((_, cut)) = cut.filter(|(whose, _)| *whose == role) {
                arguments.extend(["--cut", cut]);
            }
            shop.processes.push((role, Some(Running::start(&arguments))));
            let running = shop.processes.last_mut().and_then(|(_, running)| running.as_mut()).unwrap();
            let line = running.wait_for_output("traced-broker order system on");
            if let Some((_, url)) = line.split_once("API at ") {
                shop.url = url.to_owned();
            }
        }
        assert!(!shop.url.is_empty(), "the API said where it is");
        shop
    }

    /// Stops them as a service manager does, the senders first; each drains, sends its last spans,
    /// and exits successfully.
    pub(crate) fn close(mut self) {
        for (role, running) in self.processes.iter_mut().rev() {
            let running = running.take().unwrap();
            assert!(send_signal("TERM", running.child.id()), "{role} is gone");
            let finished = running.wait();
            assert_eq!(finished.status.code(), Some(0), "{role}: {}", finished.all());
            assert!(finished.stdout.contains("stopped: "), "{role}: {}", finished.all());
            let lossy = self.lossy.as_deref() == Some(*role);
            assert_eq!(finished.stdout.contains("spans did not get to"), lossy, "{role}: {}", finished.all());
            assert_eq!(finished.stdout.contains("trouble: "), lossy, "{role}: {}", finished.all());
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.processes
            .iter_mut()
            .filter_map(|(_, running)| running.as_mut())
            .for_each(|running| end(&mut running.child));
    }
}

/// Kills a process whose result is no longer needed.
pub(crate) fn end(child: &mut Child) {
    let _gone = child.kill();
    let _reaped = child.wait();
}

/// Returns an order that is fulfilled at once.
pub(crate) fn plain(id: &str) -> Value {
    json!({
        "id": id, "placed_at": "2026-11-23T08:00:00Z", "currency": "EUR", "carrier": "dhl",
        "customer": { "id": "C-1", "name": "Ada", "email": "ada@example.org" },
        "items": [{ "sku": "TEA-SENCHA-100", "quantity": 2, "unit_price_minor": 1180 }],
        "ship_to": { "street": "Hauptstraße 1", "city": "Ulm", "postal_code": "89073", "country": "DE" },
    })
}

/// Returns an order whose carrier answers at the third attempt.
pub(crate) fn flaky(id: &str) -> Value {
    let mut order = plain(id);
    order["carrier"] = json!("flaky-express");
    order
}

/// Returns an order for an article that no warehouse has.
pub(crate) fn hopeless(id: &str) -> Value {
    let mut order = plain(id);
    order["items"][0]["sku"] = json!("SAMOVAR-TULA-5L");
    order
}
