//! Secrets that change while a program runs.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::task::spawn_blocking;

use super::broker_url::Secret;
use crate::error::{Error, ErrorKind, Result};

type Function = dyn Fn() -> BoxFuture<'static, Result<Secret>> + Send + Sync;

/// A password or token that is asked for anew at each connect, so that it can be replaced while the
/// program runs: a fixed one, the contents of a file, or the result of a function.
///
/// ```
/// use traced_broker::{ErrorKind, Secret, SecretSource};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> traced_broker::Result<()> {
/// let vault = SecretSource::function(async || Ok(Secret::new("from the vault")));
/// assert_eq!(vault.get().await?.expose(), "from the vault");
///
/// let missing = SecretSource::file("/no/such/file").get().await.unwrap_err();
/// assert_eq!(missing.kind(), ErrorKind::InvalidConfig);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SecretSource(Origin);

#[derive(Clone)]
enum Origin {
    Fixed(Secret),
    File(PathBuf),
    Function(Arc<Function>),
}

impl SecretSource {
    /// Creates a source that reads this file each time. White space at the end of the file is not
    /// part of the secret.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self(Origin::File(path.as_ref().to_owned()))
    }

    /// Creates a source that calls this function each time.
    pub fn function<F: Future<Output = Result<Secret>> + Send + 'static>(
        function: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self(Origin::Function(Arc::new(move || Box::pin(function()))))
    }

    /// Returns the secret as it is now.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the file cannot be read or is empty; those of the function.
    pub async fn get(&self) -> Result<Secret> {
        match &self.0 {
            Origin::Fixed(secret) => Ok(secret.clone()),
            Origin::File(path) => read(path.clone()).await,
            Origin::Function(function) => function().await,
        }
    }
}

async fn read(path: PathBuf) -> Result<Secret> {
    let refused =
        |message: &'static str| Error::new(ErrorKind::InvalidConfig, message).with_context("file", path.display());
    let from = path.clone();
    let read = spawn_blocking(move || std::fs::read_to_string(from)).await;
    let text = read.map_err(|error| refused("the file of a secret cannot be read").with_source(error))?;
    let text = text.map_err(|error| refused("the file of a secret cannot be read").with_source(error))?;
    match text.trim_end() {
        "" => Err(refused("the file of a secret is empty")),
        secret => Ok(Secret::new(secret)),
    }
}

impl From<Secret> for SecretSource {
    fn from(secret: Secret) -> Self {
        Self(Origin::Fixed(secret))
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Origin::Fixed(secret) => secret.fmt(f),
            Origin::File(path) => f.debug_tuple("File").field(path).finish(),
            Origin::Function(_) => f.write_str("Function"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let source = SecretSource::file(&path);
        for text in ["first", "second\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(source.get().await.unwrap().expose(), text.trim_end());
        }
        std::fs::write(&path, "\n").unwrap();
        let error = source.get().await.unwrap_err();
        assert!(error.to_string().contains("token"), "{error}");
        assert!(!format!("{:?}", SecretSource::from(Secret::new("s3cret"))).contains("s3cret"));
    }
}
