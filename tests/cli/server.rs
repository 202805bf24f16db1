//! A loopback server with the responses of a test.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The number of earlier requests to the same path.
    pub before: usize,
}

/// A server that stops when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub url: String,
    came: Arc<Mutex<Vec<Came>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Came) -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let came = Arc::new(Mutex::new(Vec::<Came>::new()));
        let seen = Arc::clone(&came);
        let router = Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let mut seen = seen.lock().unwrap();
            let before = seen.iter().filter(|came| came.path == uri.path()).count();
            let one = Came { method, path: uri.path().to_owned(), headers, body, before };
            seen.push(one.clone());
            let response = answer(&one);
            async move { response }
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, came, task }
    }

    /// Starts a server that responds to paths that begin with `path` with `text`, and to others
    /// with 404.
    pub(crate) async fn at(path: &'static str, text: String) -> Self {
        let text = Bytes::from(text);
        Self::start(move |came| if came.path.starts_with(path) { json(text.clone()) } else { nothing() }).await
    }

    pub(crate) fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn json(text: impl Into<Body>) -> Response {
    ([("content-type", "application/json")], text.into()).into_response()
}

pub(crate) fn nothing() -> Response {
    (StatusCode::NOT_FOUND, "trace not found").into_response()
}

pub(crate) fn status(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap().into_response()
}
