// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What the readers judge beyond types, as rules for the API server (Common Expression Language), with the readers' words.
//!
//! A rule may let through what a reader refuses later; it must not refuse what a reader takes.

use serde_json::{Value, json};

use crate::backend::aws;
use crate::backend::role::RoleTemplate;
use crate::names::BackendName;
use crate::projection::{FilePath, Mode};
use crate::secret_ref::SecretPath;
use crate::spec::form::Form;
use crate::spec::rules::Rule;
use crate::spec::section::{EMPTY, number_words};
use crate::spec::values;

/// What has to hold, and the words where it does not.
pub(super) struct Validation {
    rule: String,
    words: String,
    /// The same with the value in it, as an expression.
    quoting: Option<String>,
}

/// Adds `validations` to a schema.
pub(super) fn put(validations: Vec<Validation>, mut schema: Value) -> Value {
    if !validations.is_empty() {
        schema["x-kubernetes-validations"] = validations.into_iter().map(Validation::json).collect();
    }
    schema
}

/// A rule between keys.
pub(super) fn of_rule(rule: &Rule) -> Validation {
    must(rule.cel, rule.words)
}

/// What is judged of a value of this form.
pub(super) fn of(form: &Form) -> Vec<Validation> {
    let mut all = match form {
        Form::Address => vec![must("self.matches('(?i)^https?://[^/?#@[:space:]]+/?$')", values::ADDRESS)],
        Form::BackendName => vec![must(
            "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
            BackendName::WRONG,
        )],
        Form::Certificates => vec![
            must("!self.contains('PRIVATE KEY')", values::PRIVATE_KEY),
            must("self.contains('-----BEGIN CERTIFICATE-----')", values::CERTIFICATES),
        ],
        Form::Duration { .. } => duration(form.bounds()),
        Form::FileName => vec![must("self.matches('^[-_A-Za-z0-9][-_.A-Za-z0-9]*$')", values::FILE_NAME)],
        Form::FilePath => file_path(),
        Form::Folder => {
            vec![must("self.matches('^(/[^/[:cntrl:]]+)+$') && !self.matches('/[.]{1,2}(/|$)')", values::FOLDER)]
        }
        Form::List { empty: Some(words), .. } => return vec![must("self.size() > 0", *words)],
        Form::Mode => vec![
            must("self.matches('^[0-7]{3,4}$')", values::MODE),
            must("self.size() != 4 || self.startsWith('0')", Mode::WRONG),
        ],
        Form::NamePattern => vec![must("self.matches('^[-a-z0-9.*]*$')", values::NAME_PATTERN)],
        Form::Number { .. } => {
            let (least, most) = form.bounds();
            return vec![must(format!("self >= {least} && self <= {most}"), number_words(least, most))];
        }
        Form::OneOf(words) => vec![must(format!("self in ['{}']", words.join("', '")), values::one_of_words(words))],
        Form::Percentage { most } => {
            vec![must(
                format!("self.matches('^[0-9]{{1,3}}%$') && int(self.replace('%', '')) <= {most}"),
                values::percentage(*most),
            )]
        }
        Form::Region => {
            vec![quoted("region", "self.matches('^[a-z0-9]+(-[a-z0-9]+)+$')".to_owned(), aws::NOT_A_REGION)]
        }
        Form::Role => role(),
        Form::SecretPath => secret_path(),
        Form::ServerNamespace => {
            let kept = "!self.matches('(^|/)(audit|auth|cubbyhole|identity|root|sys)(/|$)')";
            secret_path().into_iter().chain([must(kept, values::SERVER_NAMESPACE)]).collect()
        }
        Form::SecretPattern => vec![
            must("self.matches('^[-A-Za-z0-9._~@+=:,!/*]*$')", values::SECRET_PATTERN),
            must("!self.matches('^/|//|/$|(^|/)[.]{1,2}(/|$)')", values::SECRET_PATTERN),
            must("!self.matches('^([^/]+[*]|[*].)')", values::FIRST_SEGMENT),
        ],
        Form::Size { .. } => return vec![size(form.bounds())],
        Form::Name(_) | Form::Text { .. } => vec![],
        Form::Arguments | Form::Boolean | Form::List { .. } | Form::Map(_) | Form::NotRead => return vec![],
    };
    all.insert(0, must("self != ''", EMPTY));
    all
}

/// No more digits than what the API server's own reading of a duration can hold.
fn duration((least, most): (u64, u64)) -> Vec<Validation> {
    let form = "self.matches('^([0-9]{1,5}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?([0-9]{1,12}ms)?$')";
    let within = format!("duration(self) >= duration('{least}ms') && duration(self) <= duration('{most}ms')");
    vec![
        must(form, values::DURATION),
        must(format!("self == '' || !{form} || {within}"), values::outside((least, most))),
    ]
}

fn file_path() -> Vec<Validation> {
    [
        ("!self.startsWith('/')", FilePath::RELATIVE),
        ("!self.startsWith('..')", FilePath::RESERVED),
        ("!self.matches('[[:cntrl:]]')", FilePath::CONTROL),
        ("!self.matches('//|/$')", FilePath::NO_NAME),
        ("!self.matches('(^|/)[.]{1,2}(/|$)')", FilePath::DOTS),
        ("!self.matches('[^/]{256}')", FilePath::LONG_NAME),
    ]
    .map(|(rule, words)| quoted("file path", rule.to_owned(), words))
    .into()
}

fn secret_path() -> Vec<Validation> {
    let mut characters = must("self.matches('^[-A-Za-z0-9._~@+=:,!/]*$')", SecretPath::CHARACTERS);
    characters.quoting = Some(format!(
        "'secret path \"' + self + '\" may not hold \\'' + self.find('[^-A-Za-z0-9._~@+=:,!/]') + '\\': {}'",
        SecretPath::CHARACTERS
    ));
    [
        ("!self.matches('^/|/$')", SecretPath::ENDS),
        ("!self.matches('//')", SecretPath::NO_SEGMENT),
        ("!self.matches('(^|/)[.]{1,2}(/|$)')", SecretPath::DOTS),
        ("!self.matches('(^|/)data/data(/|$)')", SecretPath::DATA),
    ]
    .map(|(rule, words)| quoted("secret path", rule.to_owned(), words))
    .into_iter()
    .chain([characters])
    .collect()
}

fn role() -> Vec<Validation> {
    // `x`, so that what is left on both sides of a placeholder does not make another.
    let plain = "self.replace('{namespace}', 'x').replace('{serviceAccount}', 'x')";
    vec![
        quoted("role", format!("{plain}.matches('^[-A-Za-z0-9._:@/{{}}]*$')"), RoleTemplate::CHARACTERS),
        quoted("role", format!("!{plain}.matches('[{{}}]')"), RoleTemplate::BRACE),
    ]
}

fn size((least, most): (u64, u64)) -> Validation {
    let number = format!("self >= {least} && self <= {most}");
    let text = format!(
        "self.matches('^[0-9]+([KMG]i)?$') && quantity(self).compareTo(quantity('{least}')) >= 0 && quantity(self).compareTo(quantity('{most}')) <= 0"
    );
    must(format!("type(self) == int ? {number} : {text}"), values::SIZE)
}

fn must(rule: impl Into<String>, words: impl Into<String>) -> Validation {
    Validation { rule: rule.into(), words: words.into(), quoting: None }
}

fn quoted(what: &'static str, rule: String, words: &'static str) -> Validation {
    let escaped = words.replace('\'', "\\'");
    Validation { rule, words: words.to_owned(), quoting: Some(format!("'{what} \"' + self + '\" {escaped}'")) }
}

impl Validation {
    fn json(self) -> Value {
        let mut json = json!({ "rule": self.rule, "message": self.words });
        if let Some(expression) = self.quoting {
            json["messageExpression"] = expression.into();
        }
        json
    }
}
