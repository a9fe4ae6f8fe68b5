// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! An API server of one process: lists and watches of classes, events that are written. Every request is remembered.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// What the server does with requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Answers,
    /// With this status.
    Refuses(u16),
    /// Takes requests and answers none.
    Silent,
}

#[derive(Clone)]
pub(crate) struct FakeApi(Arc<Mutex<Inside>>);

struct Inside {
    mood: Mood,
    version: u64,
    /// By collection path and name.
    objects: HashMap<(String, String), Value>,
    requests: Vec<String>,
    bodies: Vec<Value>,
    /// Open watches: collection path and name, and where their lines go.
    watches: Vec<(String, String, mpsc::UnboundedSender<Bytes>)>,
}

impl FakeApi {
    pub(crate) fn new() -> Self {
        let (objects, requests, bodies, watches) = Default::default();
        Self(Arc::new(Mutex::new(Inside { mood: Mood::Answers, version: 1, objects, requests, bodies, watches })))
    }

    pub(crate) fn client(&self) -> kube::Client {
        let api = self.clone();
        let router = Router::new().fallback(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.answer(request).await }
        });
        kube::Client::new(router, "default")
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.inside().mood = mood;
    }

    /// Creates or changes an object, and tells whoever watches it.
    pub(crate) fn put(&self, collection: &str, name: &str, mut object: Value) {
        let mut inside = self.inside();
        inside.version += 1;
        object["metadata"]["resourceVersion"] = json!(inside.version.to_string());
        let known = inside.objects.insert((collection.to_owned(), name.to_owned()), object.clone());
        inside.tell(collection, name, if known.is_some() { "MODIFIED" } else { "ADDED" }, &object);
    }

    pub(crate) fn delete(&self, collection: &str, name: &str) {
        let mut inside = self.inside();
        inside.version += 1;
        let mut object = inside.objects.remove(&(collection.to_owned(), name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = json!(inside.version.to_string());
        inside.tell(collection, name, "DELETED", &object);
    }

    /// Ends every open watch with an error of this code.
    pub(crate) fn fail_watches(&self, code: u16) {
        let mut inside = self.inside();
        let line = json!({ "type": "ERROR", "object": { "kind": "Status", "apiVersion": "v1", "metadata": {},
            "status": "Failure", "message": "", "reason": "Expired", "code": code } });
        for (_, _, watch) in inside.watches.drain(..) {
            watch.send(Bytes::from(format!("{line}\n"))).unwrap();
        }
    }

    /// Breaks every open watch off.
    pub(crate) fn break_off(&self) {
        self.inside().watches.clear();
    }

    /// The requests so far, each `METHOD path?query`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.inside().requests.clone()
    }

    /// What was written so far.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.inside().bodies.clone()
    }

    /// How many watches somebody listens to.
    pub(crate) fn open_watches(&self) -> usize {
        let mut inside = self.inside();
        inside.watches.retain(|(_, _, watch)| !watch.is_closed());
        inside.watches.len()
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let (path, query) = (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
        let mood = {
            let mut inside = self.inside();
            inside.requests.push(format!("{} {path}?{query}", parts.method));
            inside.mood
        };
        match mood {
            Mood::Silent => std::future::pending().await,
            Mood::Refuses(code) => json_body(
                code,
                &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Failure", "message": "no", "reason": "No", "code": code }),
            ),
            Mood::Answers if parts.method == Method::GET => self.read(&path, &query),
            Mood::Answers => {
                let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                let body: Value = serde_json::from_slice(&body).unwrap();
                self.inside().bodies.push(body.clone());
                json_body(200, &body)
            }
        }
    }

    fn read(&self, collection: &str, query: &str) -> Response<Body> {
        let field = query.split('&').find_map(|field| field.strip_prefix("fieldSelector=metadata.name%3D")).unwrap();
        let mut inside = self.inside();
        if query.contains("watch=true") {
            let (watch, lines) = mpsc::unbounded_channel();
            inside.watches.push((collection.to_owned(), field.to_owned(), watch));
            let lines = UnboundedReceiverStream::new(lines).map(Ok::<_, Infallible>);
            return Response::new(Body::from_stream(lines));
        }
        let items: Vec<_> = inside.objects.get(&(collection.to_owned(), field.to_owned())).into_iter().collect();
        let version = inside.version.to_string();
        json_body(
            200,
            &json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items }),
        )
    }
}

impl Inside {
    fn tell(&mut self, collection: &str, name: &str, what: &str, object: &Value) {
        let line = Bytes::from(format!("{}\n", json!({ "type": what, "object": object })));
        self.watches
            .retain(|(of, watched, watch)| of != collection || watched != name || watch.send(line.clone()).is_ok());
    }
}

fn json_body(status: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Waits until `holds`; time is virtual in these tests, and goes on while nothing else can.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: never");
}
