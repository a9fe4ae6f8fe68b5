// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the pods of one service account that start together cost the server, as the server counts it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use evanesce_integration::many;
use evanesce_integration::openbao::OpenBao;
use evanesce_integration::sight;
use evanesce_integration::token_review::WorkloadName;
use evanesce_integration::wait;
use evanesce_integration::world::{self, Setup, World};
use tokio::task::JoinSet;

const VOLUMES: usize = 100;
const SECRETS: usize = 10;

/// A server with the secrets, which lets every service account of the namespace in.
async fn world() -> World<OpenBao> {
    // Longer than the slowest machine needs for all of it: what is counted here is who asks, not how fast.
    let setup = Setup::default().class(&many::class("many", "vault", SECRETS)).limits("{reuse: 60s}").log("info");
    let setup = setup.allow("{namespaces: [payments], serviceAccounts: [\"*\"], secrets: [\"kv/payments/*\"]}");
    let setup = setup.argument("--first-delivery-timeout=100s").argument("--namespace-tmpfs-limit=512Mi");
    let world = setup.openbao().await.unwrap();
    world::let_in(&world.backend, "*").await.unwrap();
    many::fill(&world.backend, SECRETS, |number| format!("v{number}")).await.unwrap();
    world
}

/// Publishes a volume for each of these pods at once, looks at every file, and answers how often the server was asked.
async fn asked(world: &World<OpenBao>, pods: &[WorkloadName]) -> BTreeMap<String, usize> {
    let before = world.backend.requests().unwrap().len();
    let mut publishes = JoinSet::new();
    for pod in pods {
        let (kubelet, volume) = (world.kubelet.clone(), world.volume(pod, "many"));
        publishes.spawn(async move {
            kubelet.publish(&volume).await.unwrap_or_else(|status| panic!("{status}"));
            for number in 0..SECRETS {
                assert_eq!(sight::text(volume.target_path(), &many::file(number)), format!("v{number}"));
            }
        });
    }
    publishes.join_all().await;
    let mut asked = BTreeMap::new();
    for request in world.backend.requests().unwrap().into_iter().skip(before) {
        let what = if request.path.ends_with("/login") { "logins" } else { "reads" };
        *asked.entry(what.to_owned()).or_default() += 1;
    }
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_volumes_of_one_service_account_cost_one_login_and_one_read_for_each_secret() {
    let world = world().await;
    let first = world.pod("payments", "app");
    let pods: Vec<_> = (0..VOLUMES).map(|number| first.sibling(&format!("app-{number}"))).collect();
    assert_eq!(asked(&world, &pods).await, [("logins".into(), 1), ("reads".into(), SECRETS)].into());

    // One of them more finds everything there.
    assert_eq!(asked(&world, &[first.sibling("late")]).await, BTreeMap::new());
    // Each has its own line in the log, and one in a hundred says that it asked.
    let log = world.plugin.audit();
    let fetches = || log.iter().filter(|event| event["metadata"]["event_code"] == "fetch");
    assert_eq!(fetches().count(), (VOLUMES + 1) * SECRETS);
    assert_eq!(fetches().filter(|event| event["unmapped"]["answer"] == "asked").count(), SECRETS);
    let ids = |asked: bool| {
        let told = fetches().filter(move |event| (event["unmapped"]["answer"] == "asked") == asked);
        told.map(|event| event["api"]["request"]["uid"].as_str().unwrap().to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(ids(false), ids(true), "a shared answer names the request that was made");
    assert_eq!(log.iter().filter(|event| event["metadata"]["event_code"] == "login").count(), 1);
    let metrics = world.plugin.metrics().await.unwrap();
    assert!(metrics.contains("evanesce_answers_total{backend=\"vault\",source=\"asked\"} 10"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_service_accounts_share_nothing() {
    let world = world().await;
    let (app, other) = (world.pod("payments", "app"), world.pod("payments", "other"));
    // An account of the same name that was made anew has another uid, and is another one.
    let anew = world.pod("payments", "app");
    for (pods, identities) in [(vec![&app, &other], 2), (vec![&anew], 1)] {
        let pods: Vec<_> =
            (0..VOLUMES / 2).flat_map(|n| pods.iter().map(move |pod| pod.sibling(&format!("p{n}")))).collect();
        let expected = [("logins".into(), identities), ("reads".into(), identities * SECRETS)];
        assert_eq!(asked(&world, &pods).await, expected.into());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_outlives_the_burst() {
    let world = world().await;
    let first = world.pod("payments", "app");
    let pods: Vec<_> = (0..10).map(|number| first.sibling(&format!("app-{number}"))).collect();
    asked(&world, &pods).await;
    // `proc_pid_net(5)`: a row's third column is the remote end, with its port in hexadecimal, and its fourth is 01 for
    // ESTABLISHED. Who closed last does not matter here, so TIME_WAIT is none.
    let remote = format!(":{:04X}", world.backend.socket().port());
    let ours = |row: &str| {
        let columns: Vec<_> = row.split_whitespace().collect();
        columns.get(2).is_some_and(|end| end.ends_with(&remote)) && columns.get(3) == Some(&"01")
    };
    let open = || std::fs::read_to_string("/proc/net/tcp").unwrap().lines().filter(|row| ours(row)).count();
    wait::until("the connections are closed", || open() == 0).await;
}
