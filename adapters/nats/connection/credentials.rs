//! Credentials that expire or are replaced: they are asked for anew at each connect.

use std::path::{Path, PathBuf};

use async_nats::{Auth, AuthError, ConnectOptions};
use nkeys::KeyPair;
use tokio::task::spawn_blocking;

use crate::driver::SecretSource;
use crate::error::{Error, ErrorKind, Result};

/// Returns options whose credentials are read anew at each connect.
pub(crate) async fn of_file(file: &Path) -> Result<ConnectOptions> {
    let file = file.to_owned();
    if let Err(why) = read(file.clone(), Vec::new()).await {
        return Err(Error::new(ErrorKind::InvalidConfig, "the credentials file cannot be used")
            .with_context("file", file.display())
            .with_source(why));
    }
    Ok(ConnectOptions::with_auth_callback(move |nonce| read(file.clone(), nonce)))
}

/// Returns options with a user and its password, which is asked for at each connect.
pub(crate) async fn of_user(user: &str, password: &SecretSource) -> Result<ConnectOptions> {
    // A source that has no secret is told before any server is tried.
    password.get().await?;
    let (user, password) = (user.to_owned(), password.clone());
    Ok(ConnectOptions::with_auth_callback(move |_| {
        let (user, password) = (user.clone(), password.clone());
        async move {
            let mut auth = Auth::new();
            (auth.username, auth.password) = (Some(user), Some(ask(password).await?));
            Ok(auth)
        }
    }))
}

/// Returns options with a token, which is asked for at each connect.
pub(crate) async fn of_token(token: &SecretSource) -> Result<ConnectOptions> {
    token.get().await?;
    let token = token.clone();
    Ok(ConnectOptions::with_auth_callback(move |_| {
        let token = token.clone();
        async move {
            let mut auth = Auth::new();
            auth.token = Some(ask(token).await?);
            Ok(auth)
        }
    }))
}

/// Asks in a task, because the client shares what it awaits between threads.
async fn ask(source: SecretSource) -> std::result::Result<String, AuthError> {
    let asked = tokio::spawn(async move { source.get().await }).await.map_err(AuthError::new)?;
    asked.map(|secret| secret.expose().to_owned()).map_err(AuthError::new)
}

async fn read(file: PathBuf, nonce: Vec<u8>) -> std::result::Result<Auth, AuthError> {
    let text = spawn_blocking(move || std::fs::read_to_string(file)).await.map_err(AuthError::new)?;
    sign(&text.map_err(AuthError::new)?, &nonce)
}

/// Reads the two decorated blocks of the file, a JWT and a seed, and signs the server's nonce.
fn sign(text: &str, nonce: &[u8]) -> std::result::Result<Auth, AuthError> {
    let mut blocks = text.split("-----BEGIN ").skip(1).map(|block| block.lines().nth(1).unwrap_or_default().trim());
    let mut block = |missing| blocks.next().filter(|block| !block.is_empty()).ok_or_else(|| AuthError::new(missing));
    let jwt = block("the file has no JWT")?;
    let seed = block("the file has no seed")?;
    // The error of the crate tells what is wrong with the seed, and not the seed.
    let signature = KeyPair::from_seed(seed).and_then(|key| key.sign(nonce)).map_err(AuthError::new)?;
    let mut auth = Auth::new();
    (auth.jwt, auth.signature) = (Some(jwt.to_owned()), Some(signature));
    Ok(auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocks_of_a_file_are_read_and_no_error_shows_them() {
        let seed = KeyPair::new_user().seed().unwrap();
        let file = |jwt: &str, seed: &str| {
            format!(
                "-----BEGIN NATS USER JWT-----\r\n{jwt}\n------END NATS USER JWT------\n\n*** keep ***\n\
                 -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
            )
        };
        let auth = sign(&file("ey.jwt.x", &seed), b"nonce").ok().unwrap();
        assert_eq!(auth.jwt.as_deref(), Some("ey.jwt.x"));
        let key = KeyPair::from_seed(&seed).unwrap();
        assert!(key.verify(b"nonce", &auth.signature.unwrap()).is_ok());
        for wrong in [String::new(), file("", &seed), file("ey.jwt.x", ""), file("ey.jwt.x", "SUsecret")] {
            let error = sign(&wrong, b"nonce").err().unwrap();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }
}
