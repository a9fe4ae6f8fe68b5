// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The custom resource definitions, as a Helm template, written from the tables that the readers use.
//!
//! The API server refuses what the readers refuse, in their words, as far as it can judge (decision 0016). It keeps keys
//! that it does not know instead of dropping them, so that the reader sees them and refuses them by name.

mod block;
mod schema;
mod validations;

use serde_json::{Value, json};

use crate::spec::document::API_VERSION;
use crate::spec::keys::{BACKEND, Table, VOLUME};

/// One custom resource.
struct Resource {
    kind: &'static str,
    plural: &'static str,
    short: &'static str,
    scope: &'static str,
    spec: &'static Table,
    columns: &'static [Column],
}

/// A column of `kubectl get`: its name, what it is, and where its value stands.
type Column = (&'static str, &'static str, &'static str);

const RESOURCES: [Resource; 2] = [
    Resource {
        kind: "SecretBackend",
        plural: "secretbackends",
        short: "sb",
        scope: "Cluster",
        spec: &BACKEND,
        columns: &[
            ("Address", "OpenBao or HashiCorp Vault", ".spec.vault['address', 'addresses']"),
            ("Role", "The role that pods log in with", ".spec.vault.auth['kubernetes', 'jwt'].role"),
            (
                "Audience",
                "The audience of pods' tokens; `vault` where empty",
                ".spec.vault.auth['kubernetes', 'jwt'].audience",
            ),
            ("Region", "AWS Secrets Manager", ".spec.aws.region"),
            ("Sealed", "The folder of sealed secrets", ".spec.sealed.directory"),
        ],
    },
    Resource {
        kind: "SecretVolume",
        plural: "secretvolumes",
        short: "sv",
        scope: "Namespaced",
        spec: &VOLUME,
        columns: &[
            ("Refresh", "How often it is asked again; 5m where empty", ".spec.refresh.every"),
            ("Backend", "Where the first file comes from", ".spec.files[0].from.backend"),
            ("Size", "Size of its tmpfs; as needed where empty", ".spec.size"),
        ],
    },
];

/// Both definitions, as `crds.yaml` of the chart.
pub fn template() -> String {
    let mut out = String::from(
        "{{- /* Written from engine/src/spec by its test; change it there: EVANESCE_UPDATE=1 cargo test -p evanesce-engine */}}\n\
         {{- if .Values.crds.install }}\n",
    );
    for (index, resource) in RESOURCES.iter().enumerate() {
        out += if index == 0 { "" } else { "---\n" };
        out += &format!(
            "apiVersion: apiextensions.k8s.io/v1\n\
             kind: CustomResourceDefinition\n\
             metadata:\n  name: {}.evanesce.dev\n  annotations:\n    helm.sh/resource-policy: keep\n  labels:\n    \
             {{{{- include \"evanesce.labels\" . | nindent 4 }}}}\n",
            resource.plural
        );
        out += &block::write(&json!({ "spec": definition(resource) }));
    }
    out + "{{- end }}\n"
}

fn definition(resource: &Resource) -> Value {
    let (group, version) = API_VERSION.split_once('/').unwrap_or_default();
    let column = |(name, description, path): &Column| json!({ "name": name, "description": description, "type": "string", "jsonPath": path });
    let age = json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" });
    json!({
        "group": group,
        "names": {
            "kind": resource.kind,
            "listKind": format!("{}List", resource.kind),
            "plural": resource.plural,
            "singular": resource.kind.to_lowercase(),
            "shortNames": [resource.short],
            "categories": ["evanesce"],
        },
        "scope": resource.scope,
        "versions": [{
            "name": version,
            "served": true,
            "storage": true,
            "additionalPrinterColumns": resource.columns.iter().map(column).chain([age]).collect::<Vec<_>>(),
            "schema": { "openAPIV3Schema": schema::root(resource.spec) },
        }],
    })
}
