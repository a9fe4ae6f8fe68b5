// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! A checker of events against the schema's own files in `ocsf-1.8.0`.
//!
//! It resolves what a class or object extends and includes, applies the profiles that the event names, and looks for:
//! attributes that do not exist, required ones that are absent, wrong types, numbers outside an enumeration, captions
//! that do not belong to their number, constraints, deprecated attributes, and the sums of the classification.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// The schema's files.
pub(crate) struct Schema {
    root: PathBuf,
    dictionary: Value,
    /// Path of each class file by `class_uid`.
    classes: BTreeMap<u64, PathBuf>,
}

/// A class or object with everything it extends and includes.
#[derive(Default)]
struct Definition {
    caption: String,
    category: Option<String>,
    profiles: Vec<String>,
    attributes: Map<String, Value>,
    constraints: Map<String, Value>,
}

impl Schema {
    /// Reads the files.
    pub(crate) fn load() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ocsf-1.8.0");
        let categories = read(&root.join("categories.json"));
        let mut schema = Self { dictionary: read(&root.join("dictionary.json")), classes: BTreeMap::new(), root };
        for directory in list(&schema.root.join("events")).into_iter().filter(|path| path.is_dir()) {
            for path in list(&directory) {
                let uid = read(&path).get("uid").and_then(Value::as_u64);
                let category = schema.define(&path).category;
                let category = category.and_then(|name| categories["attributes"][name]["uid"].as_u64());
                if let (Some(uid), Some(category)) = (uid, category) {
                    schema.classes.insert(category * 1000 + uid, path);
                }
            }
        }
        schema
    }

    /// What is wrong with the event; nothing if it is valid.
    pub(crate) fn check(&self, event: &Value) -> Vec<String> {
        let mut wrong = Vec::new();
        let number = |name: &str| event[name].as_u64().unwrap_or_default();
        let Some(path) = self.classes.get(&number("class_uid")) else {
            return vec![format!("class_uid {} is not a class", event["class_uid"])];
        };
        let mut class = self.define(path);
        // The base event enumerates its own class and category alone; each class implies its own, checked below.
        for name in ["category_uid", "class_uid"] {
            class.attributes[name].as_object_mut().unwrap().remove("enum");
        }
        let profiles: Vec<&str> = event["metadata"]["profiles"].as_array().map_or_else(Vec::new, |profiles| {
            profiles.iter().map(|profile| profile.as_str().unwrap_or_default()).collect()
        });
        for profile in &profiles {
            if !class.profiles.iter().any(|known| known == profile) {
                wrong.push(format!("the class has no profile {profile}"));
            }
        }
        self.check_object("event", event, &class, &profiles, &mut wrong);
        if number("type_uid") != number("class_uid") * 100 + number("activity_id") {
            wrong.push("type_uid is not class_uid * 100 + activity_id".to_owned());
        }
        if number("category_uid") != number("class_uid") / 1000 {
            wrong.push("category_uid is not that of the class".to_owned());
        }
        if event["class_name"].as_str().is_some_and(|name| name != class.caption) {
            wrong.push(format!("class_name is not {}", class.caption));
        }
        if event["metadata"]["version"] != read(&self.root.join("version.json"))["version"] {
            wrong.push("metadata.version is not the schema's".to_owned());
        }
        wrong
    }

    fn check_object(
        &self,
        at: &str,
        object: &Value,
        definition: &Definition,
        profiles: &[&str],
        wrong: &mut Vec<String>,
    ) {
        let Some(fields) = object.as_object() else {
            wrong.push(format!("{at} is not an object"));
            return;
        };
        let applies = |attribute: &Value| attribute["profile"].as_str().is_none_or(|name| profiles.contains(&name));
        for (name, value) in fields {
            let at = format!("{at}.{name}");
            match definition.attributes.get(name).filter(|attribute| applies(attribute)) {
                None => wrong.push(format!("{at} is unknown")),
                Some(attribute) if attribute.get("@deprecated").is_some() => wrong.push(format!("{at} is deprecated")),
                Some(attribute) => {
                    self.check_attribute(&at, value, attribute, profiles, wrong);
                    self.check_caption(&at, value, attribute, fields, wrong);
                }
            }
        }
        for (name, attribute) in &definition.attributes {
            if applies(attribute) && attribute["requirement"] == "required" && !fields.contains_key(name) {
                wrong.push(format!("{at}.{name} is required"));
            }
        }
        for (rule, names) in &definition.constraints {
            let set = names.as_array().map_or(0, |names| {
                names.iter().filter(|name| name.as_str().is_some_and(|name| fields.contains_key(name))).count()
            });
            match rule.as_str() {
                "at_least_one" if set == 0 => wrong.push(format!("{at} has none of {names}")),
                "just_one" if set != 1 => wrong.push(format!("{at} has {set} of {names}")),
                "at_least_one" | "just_one" => {}
                other => wrong.push(format!("{at} has a constraint that the checker does not know: {other}")),
            }
        }
    }

    fn check_attribute(&self, at: &str, value: &Value, attribute: &Value, profiles: &[&str], wrong: &mut Vec<String>) {
        if attribute["is_array"] == true {
            let Some(items) = value.as_array() else {
                wrong.push(format!("{at} is not a list"));
                return;
            };
            for (index, item) in items.iter().enumerate() {
                self.check_value(&format!("{at}[{index}]"), item, attribute, profiles, wrong);
            }
        } else {
            self.check_value(at, value, attribute, profiles, wrong);
        }
    }

    fn check_value(&self, at: &str, value: &Value, attribute: &Value, profiles: &[&str], wrong: &mut Vec<String>) {
        let kind = attribute["type"].as_str().unwrap_or_default();
        if kind.ends_with("_t") {
            if let Some(fault) = self.fault_of_scalar(kind, value) {
                wrong.push(format!("{at} {fault}"));
            }
        } else if kind != "object" {
            // `object` alone is the generic object, in which everything goes.
            let path = self.root.join(format!("objects/{kind}.json"));
            if path.is_file() {
                self.check_object(at, value, &self.define(&path), profiles, wrong);
            } else {
                wrong.push(format!("{at} cannot be checked: add objects/{kind}.json to ocsf-1.8.0"));
            }
        } else if !value.is_object() {
            wrong.push(format!("{at} is not an object"));
        }
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if attribute["enum"].as_object().is_some_and(|values| !values.contains_key(&text)) {
            wrong.push(format!("{at} may not be {value}"));
        }
    }

    /// A number's sibling text has to be the number's caption, except for 99, whose text is the source's own.
    fn check_caption(
        &self,
        at: &str,
        value: &Value,
        attribute: &Value,
        fields: &Map<String, Value>,
        wrong: &mut Vec<String>,
    ) {
        let Some(sibling) = attribute["sibling"].as_str().and_then(|name| fields.get(name)) else { return };
        let caption = &attribute["enum"][value.to_string()]["caption"];
        if *value != 99 && caption.is_string() && sibling != caption {
            wrong.push(format!("{at} {value} is called {caption}, not {sibling}"));
        }
    }

    fn fault_of_scalar(&self, kind: &str, value: &Value) -> Option<&'static str> {
        let definition = &self.dictionary["types"]["attributes"][kind];
        let base = definition["type"].as_str().unwrap_or(kind);
        let fits = match base {
            "boolean_t" => value.is_boolean(),
            "float_t" => value.is_number(),
            "integer_t" | "long_t" => value.is_i64(),
            "json_t" => true,
            "string_t" => value.is_string(),
            _ => return Some("has a type that the checker does not know"),
        };
        if !fits {
            return Some("has the wrong type");
        }
        let out_of_range = |range: &Vec<Value>| {
            let bound = |index: usize| range.get(index).and_then(Value::as_i64);
            value.as_i64() < bound(0) || value.as_i64() > bound(1)
        };
        if definition["range"].as_array().is_some_and(out_of_range) {
            return Some("is out of range");
        }
        let text = value.as_str().unwrap_or_default();
        if definition["max_len"].as_u64().is_some_and(|longest| text.len() as u64 > longest) {
            return Some("is too long");
        }
        match kind {
            "ip_t" if text.parse::<IpAddr>().is_err() => Some("is not an address"),
            "ip_t" => None,
            _ if definition.get("regex").is_some() => Some("has a pattern that the checker does not know"),
            _ => None,
        }
    }

    /// A class or object with what it extends, what it includes, and what the dictionary says of its attributes.
    fn define(&self, path: &Path) -> Definition {
        let mut definition = self.resolve(path);
        for (name, attribute) in &mut definition.attributes {
            let mut whole = self.dictionary["attributes"][name].clone();
            merge(&mut whole, attribute);
            *attribute = whole;
        }
        definition
    }

    fn resolve(&self, path: &Path) -> Definition {
        let file = read(path);
        let mut definition = match file["extends"].as_str() {
            Some(parent) => self.resolve(&self.find(path, parent)),
            None => Definition::default(),
        };
        file["caption"].as_str().unwrap_or_default().clone_into(&mut definition.caption);
        if let Some(category) = file["category"].as_str() {
            definition.category = Some(category.to_owned());
        }
        if let Some(profiles) = file["profiles"].as_array() {
            definition.profiles.extend(profiles.iter().filter_map(Value::as_str).map(str::to_owned));
        }
        if let Some(constraints) = file["constraints"].as_object() {
            definition.constraints.clone_from(constraints);
        }
        for (name, attribute) in file["attributes"].as_object().into_iter().flatten() {
            if name != "$include" {
                merge(definition.attributes.entry(name).or_insert(Value::Null), attribute);
            }
        }
        for include in file["attributes"]["$include"].as_array().into_iter().flatten() {
            let profile = read(&self.root.join(include.as_str().unwrap()));
            for (name, attribute) in profile["attributes"].as_object().into_iter().flatten() {
                // What the file itself says wins over what it includes.
                let mut whole = attribute.clone();
                whole["profile"] = profile["name"].clone();
                if let Some(own) = definition.attributes.get(name) {
                    merge(&mut whole, own);
                }
                definition.attributes.insert(name.clone(), whole);
            }
        }
        definition
    }

    fn find(&self, beside: &Path, name: &str) -> PathBuf {
        let file = format!("{name}.json");
        let here = beside.with_file_name(&file);
        if here.is_file() { here } else { self.root.join("events").join(file) }
    }
}

/// Lays `over` upon `base`, object by object.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                merge(base.entry(name).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

fn read(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn list(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}
