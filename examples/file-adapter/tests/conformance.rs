//! The conformance kit on directories of this machine.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;
use traced_broker::conformance::{self, Harness, Killable};
use traced_broker::driver::Driver;
use traced_broker::{Error, ErrorKind, Result};
use traced_broker_files::{Files, offline};

/// One directory that all cases share.
struct OneDirectory(TempDir);

#[async_trait]
impl Harness for OneDirectory {
    fn name(&self) -> &str {
        "files"
    }

    async fn connect(&self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(Files::connect(&url_of(self.0.path()).parse()?).await?))
    }

    fn own_attributes(&self) -> &[&str] {
        &["messaging.files.number"]
    }

    async fn connect_with_secret(&self, secret: &str) -> Result<Arc<dyn Driver>> {
        let url = format!("files://user:{secret}@{}", self.0.path().display());
        Ok(Arc::new(Files::connect(&url.parse()?).await?))
    }

    async fn start_mortal(&self) -> Result<Option<Arc<dyn Killable>>> {
        Ok(Some(Arc::new(OwnDirectory(Arc::new(directory())))))
    }
}

/// A directory for one case.
struct OwnDirectory(Arc<TempDir>);

#[async_trait]
impl Killable for OwnDirectory {
    async fn connect(&self) -> Result<Arc<dyn Driver>> {
        Ok(Arc::new(Files::connect(&url_of(self.0.path()).parse()?).await?))
    }

    /// The broker lives in the process of its clients, so a signal would kill both. Instead, this
    /// drops the broker's memory, and leaves half a record behind each journal. `tests/crash.rs`
    /// kills a process.
    async fn kill_and_restart(&self) -> Result<()> {
        let directory = Arc::clone(&self.0);
        let torn = tokio::task::spawn_blocking(move || offline(directory.path(), || tear(directory.path()))).await;
        torn.map_err(|error| Error::new(ErrorKind::Unexpected, error.to_string()))?
            .map_err(|error| Error::new(ErrorKind::Unexpected, error.to_string()))?;
        self.connect().await?.ping().await
    }
}

/// Adds to each journal the beginning of a record without its end.
fn tear(directory: &Path) {
    for topic in fs::read_dir(directory.join("topics")).expect("there are topics") {
        let journal = topic.expect("a topic").path().join("journal");
        let mut file = File::options().append(true).open(journal).expect("every topic has a journal");
        file.write_all(&[200, 0, 0, 0, 1, 2, 3, 4, 5]).expect("the journal can be written");
    }
}

fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory")
}

fn url_of(directory: &Path) -> String {
    format!("files://{}", directory.display())
}

fn main() -> ExitCode {
    conformance::main(vec![Arc::new(OneDirectory(directory()))])
}
