// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Whether the driver can be taken away: only it can take the volumes of its pods away, and a pod whose driver is gone
//! hangs in Terminating. The chart's hook runs this before it uninstalls, in a pod with its own service account.
//!
//! It stops nobody from making new pods meanwhile.

use std::process::ExitCode;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, Config};
use serde_json::json;

use crate::args::{Output, UninstallCheck};
use crate::output::{ERROR, GOOD, remark, say, say_json, styled};

/// How many pods are asked for at a time.
const PAGE: u32 = 500;
/// Pods that have ended have no volumes any more.
const ALIVE: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// How many are named.
const NAMED: usize = 20;

pub(crate) fn run(args: &UninstallCheck, output: Output) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pods = runtime.block_on(async {
        let config = Config::incluster().context("this runs in a pod, as the chart's hook does")?;
        pods_with_volumes(Client::try_from(config)?, &args.driver).await
    });
    let pods = pods.context("the cluster's pods cannot be listed")?;
    match output {
        Output::Json => say_json(&json!({"ok": pods.is_empty(), "driver": args.driver, "pods": pods}))?,
        Output::Text if pods.is_empty() => say(styled(GOOD, format_args!("no pod has a volume of {}", args.driver)))?,
        Output::Text => {
            remark(
                ERROR,
                "refused",
                format_args!(
                    "{} pods have volumes of {}, and without it they would hang in Terminating: delete them first",
                    pods.len(),
                    args.driver
                ),
            );
            for pod in pods.iter().take(NAMED) {
                say(pod)?;
            }
            if pods.len() > NAMED {
                say(format_args!("and {} more", pods.len() - NAMED))?;
            }
        }
    }
    Ok(if pods.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Pods on a node that have a volume of the driver, as `namespace/name on node`.
async fn pods_with_volumes(client: Client, driver: &str) -> anyhow::Result<Vec<String>> {
    let api = Api::<Pod>::all(client);
    let mut page = ListParams::default().fields(ALIVE).limit(PAGE);
    let mut found = Vec::new();
    loop {
        let pods = api.list(&page).await?;
        found.extend(pods.items.iter().filter_map(|pod| with_volume(pod, driver)));
        match pods.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page.continue_token = Some(token),
            None => return Ok(found),
        }
    }
}

fn with_volume(pod: &Pod, driver: &str) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let node = spec.node_name.as_ref()?;
    spec.volumes.iter().flatten().find(|volume| volume.csi.as_ref().is_some_and(|csi| csi.driver == driver))?;
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    Some(format!("{}/{} on {node}", text(&pod.metadata.namespace), text(&pod.metadata.name)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use axum::extract::RawQuery;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::Value;

    use super::*;

    fn pod(name: &str, node: Option<&str>, driver: Option<&str>) -> Value {
        let csi = driver.map(|driver| json!({"name": "secrets", "csi": {"driver": driver}}));
        let volumes: Vec<_> = [json!({"name": "other", "emptyDir": {}})].into_iter().chain(csi).collect();
        json!({"metadata": {"name": name, "namespace": "payments"},
               "spec": {"nodeName": node, "containers": [], "volumes": volumes}})
    }

    async fn api_server(RawQuery(query): RawQuery) -> Json<Value> {
        let query = query.unwrap_or_default();
        assert!(query.contains("fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed"), "{query}");
        let (items, more) = match query.contains("continue=next") {
            false => (
                vec![
                    pod("one", Some("n1"), Some("csi.evanesce.dev")),
                    pod("other-driver", Some("n1"), Some("csi.other")),
                    pod("no-volume", Some("n1"), None),
                ],
                "next",
            ),
            true => (
                vec![
                    pod("nowhere-yet", None, Some("csi.evanesce.dev")),
                    pod("two", Some("n2"), Some("csi.evanesce.dev")),
                ],
                "",
            ),
        };
        Json(json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"continue": more}, "items": items}))
    }

    #[tokio::test]
    async fn pods_with_a_volume_of_the_driver_are_found_on_every_page_and_no_others() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = axum::serve(listener, Router::new().route("/api/v1/pods", get(api_server)));
        tokio::spawn(server.into_future());
        let config = Config::new(format!("http://{address}").parse().unwrap());
        let found = pods_with_volumes(Client::try_from(config).unwrap(), "csi.evanesce.dev").await.unwrap();
        assert_eq!(found, ["payments/one on n1", "payments/two on n2"]);
    }
}
