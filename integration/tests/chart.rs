// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The Helm chart, by real helm: what it renders, what it refuses, and that what it names exists.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use evanesce_integration::helm::{chart, helm, objects, render, repository};
use serde_json::Value;

/// Sets of values, each `chart/NAME.values.yaml`, with the Kubernetes they are for; what comes of them is `chart/NAME.yaml`.
const SETS: [(&str, &str); 4] =
    [("minimal", "1.30"), ("everything", "1.37"), ("files", "1.36"), ("air-gapped", "1.34")];

/// What the plugin can be told and the chart need not: where the container has everything, what Kubernetes tells it, and
/// what only a rootless demo wants.
const NOT_OFFERED: [&str; 10] = [
    "--csi-socket",
    "--registration-dir",
    "--state-dir",
    "--journal-dir",
    "--classes-dir",
    "--sealed-dir",
    "--api-server-host",
    "--api-server-port",
    "--service-account-dir",
    "--single-uid",
];

fn beside(file: &str) -> PathBuf {
    repository().join("integration/tests/chart").join(file)
}

fn rendered((set, kubernetes): (&str, &str)) -> String {
    let values = beside(&format!("{set}.values.yaml"));
    render(&["--kube-version", kubernetes, "--values", values.to_str().unwrap()]).unwrap()
}

/// The chart with the least it needs, and these values more.
fn with(values: &[&str]) -> Result<String, String> {
    let mut arguments = vec!["--set=image.repository=registry.example/evanesce"];
    arguments.extend(values);
    render(&arguments).map_err(|refusal| refusal.to_string())
}

fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

fn page(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

/// The file is this; `EVANESCE_UPDATE=1` makes it so.
fn keep(path: PathBuf, text: &str) {
    if std::env::var_os("EVANESCE_UPDATE").is_some() {
        fs::write(&path, text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differs = written.lines().zip(text.lines()).position(|(old, new)| old != new);
    assert!(
        written == text,
        "line {} of {} changed; look at it, run the test again with EVANESCE_UPDATE=1 and commit it",
        differs.unwrap_or(0) + 1,
        path.display()
    );
}

#[test]
fn helm_finds_nothing_to_say_about_the_chart() {
    let chart = chart();
    helm(["lint", "--strict", "--set=image.repository=registry.example/evanesce", chart.to_str().unwrap()]).unwrap();
}

#[test]
fn what_is_rendered_is_what_was_looked_at() {
    for set in SETS {
        // The definitions are written from the engine's types, and looked at there.
        let rendered = rendered(set);
        let documents = rendered.split("---\n").filter(|it| !it.contains("kind: CustomResourceDefinition"));
        keep(beside(&format!("{}.yaml", set.0)), &documents.collect::<Vec<_>>().join("---\n"));
    }
}

#[test]
fn a_value_that_is_not_there_is_refused_by_its_name() {
    for value in ["image.repositry", "extraArgs", "networkPolicy.cidrs", "hostPID"] {
        let refusal = with(&[&format!("--set={value}=x")]).unwrap_err();
        let (_, name) = value.rsplit_once('.').unwrap_or(("", value));
        assert!(refusal.contains(&format!("'{name}' not allowed")), "{value}: {refusal}");
    }
}

#[test]
fn a_refusal_says_what_to_do() {
    let refusal = render(&[]).unwrap_err().to_string();
    assert!(refusal.contains("image.repository") && refusal.contains("image/build"), "{refusal}");
    for (values, says) in [
        (&["--set=preventPodSchedulingIfMissing=true", "--kube-version=1.36"][..], "startupTaint.enabled"),
        (&["--kube-version=1.29"], ">=1.30"),
        (&["--set=classes.configMap=a,classes.inline.b=c"], "one place"),
        (&["--set=credentials.configMap=a,credentials.secret=b"], "one place"),
        (&["--set=sealed.configMap=a,sealed.hostPath=/b/c"], "one place"),
        (&["--set=caBundle.configMap=a,caBundle.pem=b"], "one place"),
        (&["--set=classes.configMap=a,startupTaint.enabled=true"], "needs the API server"),
        (&["--set=driverName=b.example"], "stateDir"),
        (&["--set=networkPolicy.enabled=true"], "networkPolicy.backends"),
        (&["--set=limits.nodeTmpfs=1Gi"], "resources.limits.memory"),
        (&["--set=backendPorts={0}"], "backendPorts"),
        (&["--set=engineUid=0"], "engineUid"),
        (&["--set=kubeletDir=var"], "kubeletDir"),
        (&["--set=tokenExpirationSeconds=60"], "tokenExpirationSeconds"),
    ] {
        let refusal = with(values).unwrap_err();
        assert!(refusal.contains(says), "{values:?}: {refusal}");
    }
}

#[test]
fn the_driver_says_what_each_kubernetes_understands() {
    for (kubernetes, in_secrets) in [("1.34.9", false), ("v1.35.0-eks-7f9249a", true), ("1.36.3", true)] {
        let objects = objects(&with(&["--kube-version", kubernetes]).unwrap()).unwrap();
        let driver = of_kind(&objects, "CSIDriver").next().unwrap();
        assert_eq!(driver["spec"].get("serviceAccountTokenInSecrets").is_some(), in_secrets, "{kubernetes}");
        assert_eq!(driver["spec"]["tokenRequests"][0]["audience"], "vault", "{driver}");
    }
    // The API server refuses the one without the other.
    let objects = objects(&with(&["--set=audiences=null"]).unwrap()).unwrap();
    let spec = &of_kind(&objects, "CSIDriver").next().unwrap()["spec"];
    assert!(spec.get("tokenRequests").is_none() && spec.get("serviceAccountTokenInSecrets").is_none(), "{spec}");
}

#[test]
fn no_role_reaches_secrets_tokens_or_a_status() {
    for set in SETS {
        let objects = objects(&rendered(set)).unwrap();
        for role in of_kind(&objects, "ClusterRole").chain(of_kind(&objects, "Role")) {
            for rule in role["rules"].as_array().unwrap() {
                let words = ["apiGroups", "resources", "verbs"].map(|list| rule[list].as_array().unwrap());
                for word in words.into_iter().flatten().map(|word| word.as_str().unwrap()) {
                    let forbidden =
                        ["*", "secrets", "serviceaccounts", "impersonate", "bind", "escalate"].contains(&word);
                    assert!(!forbidden && !word.contains('/'), "{}: {}: {word}", set.0, role["metadata"]["name"]);
                }
            }
        }
        let plugin = &of_kind(&objects, "DaemonSet").next().unwrap()["metadata"]["name"];
        let classes = "[\"evanesce.dev\"] [\"secretbackends\",\"secretvolumes\"] [\"get\",\"list\",\"watch\"]\n\
                       [\"\",\"events.k8s.io\"] [\"events\"] [\"create\",\"patch\"]\n";
        let taint = "[\"\"] [\"nodes\"] [\"get\",\"patch\"]\n";
        let expected = match set.0 {
            "files" => String::new(),
            "everything" => format!("{classes}{taint}"),
            _ => classes.to_owned(),
        };
        assert_eq!(granted(&objects, plugin), expected, "{}", set.0);
        let check = Value::from(format!("{}-uninstall-check", plugin.as_str().unwrap()));
        assert_eq!(granted(&objects, &check), "[\"\"] [\"pods\"] [\"list\"]\n", "{}", set.0);
    }
}

/// What a service account may do, one rule a line.
fn granted(objects: &[Value], account: &Value) -> String {
    let mut rules = String::new();
    for binding in of_kind(objects, "ClusterRoleBinding").filter(|it| it["subjects"][0]["name"] == *account) {
        let role = of_kind(objects, "ClusterRole").find(|role| role["metadata"]["name"] == binding["roleRef"]["name"]);
        for rule in role.unwrap()["rules"].as_array().unwrap() {
            writeln!(rules, "{} {} {}", rule["apiGroups"], rule["resources"], rule["verbs"]).unwrap();
        }
    }
    rules
}

#[test]
fn classes_as_files_leave_the_plugin_without_the_api_server() {
    let objects = objects(&rendered(SETS[2])).unwrap();
    let pod = &of_kind(&objects, "DaemonSet").next().unwrap()["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert!(!pod["containers"][0]["args"].as_array().unwrap().iter().any(|flag| flag == "--kubernetes"));
    for role in of_kind(&objects, "ClusterRole").chain(of_kind(&objects, "ClusterRoleBinding")) {
        assert_eq!(role["metadata"]["annotations"]["helm.sh/hook"], "pre-delete", "{role}");
    }
    let policy = of_kind(&objects, "NetworkPolicy").next().unwrap().to_string();
    assert!(!policy.contains("6443"), "{policy}");
}

#[test]
fn one_container_has_no_more_of_the_node_than_it_needs() {
    for set in SETS {
        let objects = objects(&rendered(set)).unwrap();
        let pod = &of_kind(&objects, "DaemonSet").next().unwrap()["spec"]["template"]["spec"];
        for host in ["hostPID", "hostNetwork", "hostIPC", "hostUsers", "initContainers"] {
            assert!(pod.get(host).is_none(), "{}: {host}", set.0);
        }
        let [container] = &pod["containers"].as_array().unwrap()[..] else { panic!("more than one container") };
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{}", set.0);
        // Kubelet would give the service account's token to that uid alone, and the engine half has another.
        assert!(
            container["securityContext"].get("runAsUser").is_none() && pod.get("securityContext").is_none(),
            "{}",
            set.0
        );
        for mount in container["volumeMounts"].as_array().unwrap() {
            let may_write =
                ["pods", "plugin", "registration", "state", "audit"].iter().any(|name| mount["name"] == *name);
            assert!(may_write || mount["readOnly"] == true, "{}: {mount}", set.0);
        }
    }
}

#[test]
fn every_flag_exists_and_every_flag_can_be_set() {
    let page = page("docs/reference/flags.md");
    let flags: BTreeSet<_> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(flags.contains("--driver-name"), "{page}");
    let mut set = BTreeSet::new();
    for values in SETS {
        let objects = objects(&rendered(values)).unwrap();
        let container = &of_kind(&objects, "DaemonSet").next().unwrap()["spec"]["template"]["spec"]["containers"][0];
        for argument in container["args"].as_array().unwrap() {
            let flag = argument.as_str().unwrap().split('=').next().unwrap().to_owned();
            assert!(flags.contains(flag.as_str()), "{}: the plugin has no {flag}", values.0);
            set.insert(flag);
        }
        for variable in container["env"].as_array().unwrap() {
            let variable = format!("`{}`", variable["name"].as_str().unwrap());
            let row = page.lines().find(|line| line.starts_with("| `--") && line.contains(&variable));
            let flag = row.unwrap_or_else(|| panic!("{}: the plugin reads no {variable}", values.0));
            set.insert(flag[3..].split('`').next().unwrap().to_owned());
        }
    }
    for flag in flags.iter().filter(|flag| !NOT_OFFERED.contains(flag)) {
        assert!(set.contains(*flag), "no value of the chart says {flag}");
    }
}

#[test]
fn every_metric_of_the_alerts_and_the_dashboard_exists() {
    let page = page("docs/reference/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let mut metrics = BTreeSet::new();
    for (name, rest) in rows {
        metrics.insert(name.to_owned());
        if rest.starts_with("histogram") {
            metrics.extend(["bucket", "sum", "count"].map(|suffix| format!("{name}_{suffix}")));
        }
    }
    let objects = objects(&rendered(SETS[1])).unwrap();
    let rules = of_kind(&objects, "PrometheusRule").next().unwrap();
    let alerts: Vec<_> =
        rules["spec"]["groups"].as_array().unwrap().iter().flat_map(|it| it["rules"].as_array().unwrap()).collect();
    let dashboard = of_kind(&objects, "ConfigMap").find_map(|it| it["data"]["evanesce.json"].as_str()).unwrap();
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter().map(|it| &it["query"]["query"]);
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()).map(|target| &target["expr"]);
    let queries = alerts.iter().map(|alert| &alert["expr"]).chain(targets).chain(variables).filter_map(Value::as_str);
    let mut seen = BTreeSet::new();
    for query in queries {
        let words =
            query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("evanesce_"));
        for metric in words {
            assert!(metrics.contains(metric), "{metric} of {query:?} does not exist");
            seen.insert(metric.trim_end_matches("_bucket").to_owned());
        }
    }
    // What the plugin tells, the dashboard shows.
    for metric in metrics.iter().filter(|it| !["_bucket", "_sum", "_count"].iter().any(|suffix| it.ends_with(suffix))) {
        assert!(seen.contains(metric), "no query asks for {metric}");
    }
}

#[test]
fn every_alert_leads_to_a_section_of_the_troubleshooting_page() {
    let page = page("docs/troubleshooting.md");
    let anchors: BTreeSet<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    let objects = objects(&rendered(SETS[1])).unwrap();
    let rules = of_kind(&objects, "PrometheusRule").next().unwrap();
    for alert in rules["spec"]["groups"][0]["rules"].as_array().unwrap() {
        let runbook = alert["annotations"]["runbook_url"].as_str().unwrap();
        let (_, section) = runbook.split_once("docs/troubleshooting.md#").unwrap();
        assert!(anchors.contains(section), "{}: no section {section:?} among {anchors:?}", alert["alert"]);
    }
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-')
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn the_charts_version_is_the_programs() {
    let chart: Value = serde_saphyr::from_str(&page("charts/evanesce/Chart.yaml")).unwrap();
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_table_of_values_is_what_the_schema_says() {
    let schema: Value = serde_json::from_str(&page("charts/evanesce/values.schema.json")).unwrap();
    let values: Value = serde_saphyr::from_str(&page("charts/evanesce/values.yaml")).unwrap();
    let mut table = "| Value | Default | What it is |\n| --- | --- | --- |\n".to_owned();
    rows(&mut table, "", &schema, &values);
    let path = chart().join("README.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, _) = text.split_once("| Value |").unwrap();
    keep(path, &format!("{before}{table}"));
}

/// One row for each value; what has parts has no row of its own.
fn rows(table: &mut String, prefix: &str, schema: &Value, values: &Value) {
    let properties = schema["properties"].as_object().unwrap();
    for key in values.as_object().unwrap().keys() {
        assert!(properties.contains_key(key), "values.schema.json does not know {prefix}{key}");
    }
    for (key, property) in properties {
        let Some(default) = values.get(key) else {
            assert_eq!(key, "global", "values.yaml has no {prefix}{key}");
            continue;
        };
        if property.get("properties").is_some() {
            rows(table, &format!("{prefix}{key}."), property, default);
            continue;
        }
        let what = property["description"].as_str().unwrap_or_else(|| panic!("{prefix}{key} has no description"));
        let choices = property["enum"].as_array().map(|all| {
            let all: Vec<_> = all.iter().map(|choice| format!("`{choice}`")).collect();
            format!(" ({})", all.join(", "))
        });
        let what = what.replace('|', "\\|");
        writeln!(table, "| `{prefix}{key}` | `{default}` | {what}{} |", choices.unwrap_or_default()).unwrap();
    }
}
