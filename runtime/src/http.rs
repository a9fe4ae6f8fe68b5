// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The three questions that a daemon answers over HTTP: `/healthz` (also `/livez`, as the API server has it), `/readyz` and
//! `/metrics`.
//!
//! *Health* is asked anew each time, of a probe that the program gives; who fails it is restarted. *Readiness* is what
//! start-up still waits for; who lacks it is left alone. Nothing here changes anything, and no answer holds a secret,
//! so there is no authentication: the program chooses where to listen, and a NetworkPolicy who may come.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::ready::Readiness;

/// A probe that takes longer is a failed one. Below kubelet's shortest sensible `timeoutSeconds`.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// A connection's whole life: as long as Prometheus waits for a scrape.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// Connections at a time. Descriptors are for the daemon's work.
const CONNECTIONS: usize = 128;

/// The routes. `probe` answers whether the daemon works, and if not what is wrong, in one line without a secret.
pub fn router<P, F>(probe: P, readiness: Readiness, metrics: Arc<Metrics>) -> Router
where
    P: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    Router::new()
        .route(
            "/healthz",
            get({
                let probe = probe.clone();
                move || healthz(probe())
            }),
        )
        .route("/livez", get(move || healthz(probe())))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(scrape).with_state(metrics))
}

/// Serves `router` on `listener` until `stop`, and the requests in hand to their end. Each connection has one request and
/// [`CONNECTION_LIMIT`]: whoever sends or reads slowly keeps nothing for longer than that.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Some((stream, place)) = stop.run_until_cancelled(accept(&listener, &places)).await {
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            // Both mean that the client did not behave, which is its own affair.
            let _ = tokio::time::timeout(CONNECTION_LIMIT, connection(stream, router, stop)).await;
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // None once it is closed, which nobody does.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            // Out of descriptors, most likely: the next one may fit.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) -> Result<(), hyper::Error> {
    let service = TowerToHyperService::new(router);
    let mut served = pin!(http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = served.as_mut() => return ended,
        () = stop.cancelled() => served.as_mut().graceful_shutdown(),
    }
    served.await
}

async fn healthz(probe: impl Future<Output = Result<(), String>>) -> (StatusCode, String) {
    match tokio::time::timeout(PROBE_LIMIT, probe).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n".to_owned()),
        Ok(Err(wrong)) => (StatusCode::SERVICE_UNAVAILABLE, one_line(&wrong)),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, format!("no answer within {} s\n", PROBE_LIMIT.as_secs())),
    }
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    match readiness.pending().as_slice() {
        [] => (StatusCode::OK, "ok\n".to_owned()),
        pending => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", pending.join(", "))),
    }
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.encode())
}

fn one_line(text: &str) -> String {
    format!("{}\n", text.replace(char::is_control, " "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::future::{pending, ready};
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    struct Server {
        address: SocketAddr,
        stop: CancellationToken,
        task: JoinHandle<()>,
    }

    async fn start(router: Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, router, stop.clone()));
        Server { address, stop, task }
    }

    /// Status, head and body of a GET.
    async fn ask(server: &Server, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    fn healthy() -> std::future::Ready<Result<(), String>> {
        ready(Ok(()))
    }

    #[tokio::test]
    async fn health_is_asked_anew_each_time_and_said_in_one_line() {
        let (health, seen) = tokio::sync::watch::channel(Ok(()));
        let router = router(move || ready(seen.borrow().clone()), Readiness::new(), Arc::new(Metrics::new("x")));
        let server = start(router).await;
        let (status, _, body) = ask(&server, "/healthz").await;
        assert_eq!((status, body.as_str()), (200, "ok\n"));
        health.send(Err("the warden\r\nis gone".to_owned())).unwrap();
        for path in ["/healthz", "/livez"] {
            let (status, _, body) = ask(&server, path).await;
            assert_eq!((status, body.as_str()), (503, "the warden  is gone\n"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_hangs_is_a_failed_one() {
        let asked = tokio::time::Instant::now();
        let (status, body) = healthz(pending()).await;
        assert_eq!(asked.elapsed().as_secs(), PROBE_LIMIT.as_secs());
        assert_eq!((status.as_u16(), body.as_str()), (503, "no answer within 2 s\n"));
    }

    #[tokio::test]
    async fn readiness_names_what_is_pending() {
        let readiness = Readiness::new();
        let (sockets, engine) = (readiness.wait_for("sockets"), readiness.wait_for("engine"));
        let server = start(router(healthy, readiness, Arc::new(Metrics::new("x")))).await;
        let (status, _, body) = ask(&server, "/readyz").await;
        assert_eq!((status, body.as_str()), (503, "waiting for sockets, engine\n"));
        sockets.ready();
        engine.ready();
        assert_eq!(ask(&server, "/readyz").await.0, 200);
    }

    #[tokio::test]
    async fn metrics_are_open_metrics_text() {
        let mut metrics = Metrics::new("evanesce");
        metrics.counter::<()>("deliveries", "Deliveries that ended").inc(());
        let server = start(router(healthy, Readiness::new(), Arc::new(metrics))).await;
        let (status, head, body) = ask(&server, "/metrics").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
        assert!(body.contains("evanesce_deliveries_total{} 1") && body.ends_with("# EOF\n"), "{body}");
        assert_eq!(ask(&server, "/elsewhere").await.0, 404);
    }

    #[tokio::test]
    async fn a_stopped_server_answers_what_it_has_in_hand() {
        let (asked, was_asked) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        let once = Arc::new(std::sync::Mutex::new(Some((asked, answered))));
        let probe = move || {
            let (asked, answered) = once.lock().unwrap().take().unwrap();
            async move {
                asked.send(()).unwrap();
                answered.await.map_err(|_| "dropped".to_owned())
            }
        };
        let server = start(router(probe, Readiness::new(), Arc::new(Metrics::new("x")))).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        was_asked.await.unwrap();
        server.stop.cancel();
        answer.send(()).unwrap();
        let mut text = String::new();
        let hung_up = stream.read_to_string(&mut text);
        tokio::time::timeout(Duration::from_secs(10), hung_up).await.expect("it hangs").unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        server.task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_slow_to_send_is_hung_up_on() {
        let server = start(router(healthy, Readiness::new(), Arc::new(Metrics::new("x")))).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "");
    }

    #[tokio::test]
    async fn a_connection_has_one_request() {
        let server = start(router(healthy, Readiness::new(), Arc::new(Metrics::new("x")))).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut text = String::new();
        // To the end, although the client asked for none.
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
}
