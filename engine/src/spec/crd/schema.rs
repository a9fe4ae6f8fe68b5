// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Tables and forms as a structural schema of Kubernetes (OpenAPI v3).

use serde_json::{Value, json};

use crate::spec::crd::validations;
use crate::spec::form::Form;
use crate::spec::keys::{Key, Table};

/// The schema of an object whose `spec` is read against `spec`.
pub(super) fn root(spec: &'static Table) -> Value {
    let about = spec.about;
    let mut spec = map(spec);
    spec["description"] = about.into();
    json!({
        "description": about,
        "type": "object",
        "required": ["spec"],
        "properties": { "spec": spec },
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// A map with keys of its own. Keys beside them are kept, for the reader to refuse by name.
fn map(table: &Table) -> Value {
    let required: Vec<_> = table.keys.iter().filter(|key| key.default == "required").map(|key| key.name).collect();
    let properties: serde_json::Map<_, _> = table.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let mut map = json!({ "type": "object", "properties": properties, "x-kubernetes-preserve-unknown-fields": true });
    if !required.is_empty() {
        map["required"] = required.into();
    }
    validations::put(table.rules.iter().map(|rule| validations::of_rule(rule)).collect(), map)
}

fn property(key: &Key) -> Value {
    let mut property = form(&key.form);
    property["description"] = match key.default {
        "none" | "required" | "see below" => key.meaning.to_owned(),
        default => format!("{} Where absent: {default}.", key.meaning),
    }
    .into();
    property
}

fn form(form: &Form) -> Value {
    let schema = match form {
        Form::Map(table) => return map(table),
        Form::List { of, most, .. } => json!({ "type": "array", "items": self::form(of), "maxItems": most }),
        Form::Arguments => json!({
            "type": "object",
            "maxProperties": Form::MOST_ARGUMENTS,
            "additionalProperties": { "x-kubernetes-int-or-string": true, "maxLength": form.longest() },
        }),
        Form::Boolean => json!({ "type": "boolean" }),
        Form::Number { .. } => json!({ "type": "integer", "format": "int64" }),
        Form::Size { .. } => json!({ "x-kubernetes-int-or-string": true, "maxLength": form.longest() }),
        Form::NotRead => json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
        _ => json!({ "type": "string", "maxLength": form.longest() }),
    };
    validations::put(validations::of(form), schema)
}
