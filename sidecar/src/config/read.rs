// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! From the text to its types.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evanesce_engine::error::Error;
use evanesce_engine::spec::settings::{self, Field, Section, duration, one_of};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Uri};
use rustix::process::Signal;

use super::{Action, CommandLine, Config, Hook, On, Recipient, Request, Retry, Volume, keys};

const DEBOUNCE: Duration = Duration::from_millis(200);
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
const RETRY: Retry = Retry { first: Duration::from_secs(1), most: Duration::from_secs(60), attempts: None };

/// Headers that are ours to write: they say where a request ends and whom it is for.
const OURS: &[&str] = &["connection", "content-length", "host", "transfer-encoding", "upgrade"];

pub(super) fn config(text: &str) -> Result<Config, Error> {
    settings::read(text, &keys::CONFIG, |top| {
        let volumes = named(&top.require("volumes")?.items()?, volume, |volume| &volume.name)?;
        Ok(Config { volumes: volumes.into_iter().map(Arc::new).collect() })
    })
}

/// The items of a list, no two of one name.
fn named<T>(
    items: &[Field<'_>],
    read: fn(&Section<'_>) -> Result<T, Error>,
    name: fn(&T) -> &str,
) -> Result<Vec<T>, Error> {
    let mut all: Vec<T> = Vec::with_capacity(items.len());
    for item in items {
        let one = item.map(read)?;
        if let Some(index) = all.iter().position(|other| name(other) == name(&one)) {
            return Err(item.wrong(&format!(
                "`name: {}` is that of item {index} too: give each its own, so that logs can tell them apart",
                name(&one)
            )));
        }
        all.push(one);
    }
    Ok(all)
}

fn volume(volume: &Section<'_>) -> Result<Volume, Error> {
    Ok(Volume {
        name: name(volume)?,
        path: absolute(volume.require("path")?)?,
        hooks: named(&volume.require("hooks")?.items()?, hook, |hook| &hook.name)?,
        on_start: volume.get("onStart").map_or(Ok(false), Field::boolean)?,
        debounce: volume.get("debounce").map_or(Ok(DEBOUNCE), duration)?,
        min_interval: volume.get("minInterval").map_or(Ok(MIN_INTERVAL), duration)?,
        retry: volume.get("retry").map_or(Ok(RETRY), |it| it.map(retry))?,
    })
}

fn retry(retry: &Section<'_>) -> Result<Retry, Error> {
    let first = retry.get("first").map_or(Ok(RETRY.first), duration)?;
    let most = retry.get("most").map_or(Ok(RETRY.most.max(first)), duration)?;
    if most < first {
        return Err(retry.wrong("`most` is less than `first`: raise it"));
    }
    Ok(Retry { first, most, attempts: retry.get("attempts").map(Field::number).transpose()? })
}

fn hook(hook: &Section<'_>) -> Result<Hook, Error> {
    let name = name(hook)?;
    let on = match hook.get("on").map_or(Ok("changed"), one_of)? {
        "stale" => On::Stale,
        "fresh" => On::Fresh,
        _ => On::Changed,
    };
    let timeout = hook.get("timeout").map_or(Ok(TIMEOUT), duration)?;
    let go_on = hook.get("onFailure").map_or(Ok("stop"), one_of)? == "continue";
    let mut actions = [
        hook.get("command").map(|it| it.map(command).map(Action::Command)),
        hook.get("http").map(|it| it.map(http).map(|request| Action::Http(Box::new(request)))),
        hook.get("signal").map(|it| it.map(signal).map(Action::Signal)),
        hook.get("touch").map(|it| it.map(|touch| absolute(touch.require("path")?)).map(Action::Touch)),
    ]
    .into_iter()
    .flatten();
    match (actions.next(), actions.next()) {
        (Some(action), None) => Ok(Hook { name, on, timeout, go_on, action: action? }),
        _ => Err(hook.wrong("exactly one of `command`, `http`, `signal` and `touch` says what to do")),
    }
}

fn command(command: &Section<'_>) -> Result<CommandLine, Error> {
    let run = command.require("run")?;
    let mut words = Vec::new();
    for word in &run.items()? {
        // An argument may be empty; the program may not.
        let text = if words.is_empty() { word.text()? } else { word.letters()? };
        if text.contains('\0') {
            return Err(word.wrong("holds a zero byte, which no program can be given"));
        }
        words.push(text.to_owned());
    }
    let quiet = command.get("output").map_or(Ok("log"), one_of)? == "discard";
    let program = words.remove(0);
    if program.contains('/') && !program.starts_with('/') {
        return Err(
            run.wrong("the program is looked for in PATH by its name alone, or has a whole path: /usr/sbin/nginx")
        );
    }
    Ok(CommandLine { program, arguments: words, quiet })
}

fn http(http: &Section<'_>) -> Result<Request, Error> {
    let field = http.require("url")?;
    let url = url(field)?;
    let tls = url.scheme_str() == Some("https");
    let ca_file = http.get("caFile").map(absolute).transpose()?;
    let unix_socket = http.get("unixSocket").map(absolute).transpose()?;
    if ca_file.is_some() && !tls {
        return Err(http.wrong("`caFile` has no meaning for an http:// URL: use https://, or remove it"));
    }
    if unix_socket.is_some() && tls {
        return Err(http.wrong("`unixSocket` with an https:// URL: TLS over a Unix socket is not spoken; use http://"));
    }
    let method = match http.get("method").map_or(Ok("POST"), one_of)? {
        "GET" => Method::GET,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        "DELETE" => Method::DELETE,
        _ => Method::POST,
    };
    let headers = http.get("headers").map_or_else(|| Ok(Vec::new()), headers)?;
    let status =
        http.get("status").map_or_else(|| Ok(Vec::new()), |it| it.items()?.iter().map(Field::number).collect())?;
    Ok(Request { url, method, headers, status, ca_file, unix_socket })
}

fn url(field: &Field<'_>) -> Result<Uri, Error> {
    const EXPECTED: &str = "expected http://host:port/path or https://host:port/path, without a user";
    let text = field.text()?;
    let url: Uri = text.parse().map_err(|_| field.wrong(EXPECTED))?;
    let user = url.authority().is_some_and(|authority| authority.as_str().contains('@'));
    match url.scheme_str() {
        Some("http" | "https") if !user && url.host().is_some_and(|host| !host.is_empty()) => Ok(url),
        _ => Err(field.wrong(EXPECTED)),
    }
}

fn headers(field: &Field<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, Error> {
    let header = |entry: &Field<'_>| {
        let name: HeaderName =
            entry.name().parse().map_err(|_| entry.wrong("is no name of a header: letters, digits and '-'"))?;
        if OURS.contains(&name.as_str()) {
            return Err(entry.wrong("is written by the sidecar: remove it"));
        }
        // Whatever it is, it may be a token: it is not quoted, here or later.
        let mut value: HeaderValue = entry
            .argument()?
            .parse()
            .map_err(|_| entry.wrong("holds what a header cannot: a line break or the like"))?;
        value.set_sensitive(true);
        Ok((name, value))
    };
    field.entries()?.iter().map(header).collect()
}

fn signal(signal: &Section<'_>) -> Result<Recipient, Error> {
    let pid_file = signal.get("pidFile").map(absolute).transpose()?;
    let process = signal.get("process").map(|field| {
        let name = field.text()?;
        if name.contains(['/', '\0', '\n']) {
            return Err(field.wrong("expected a name, such as nginx, and no path"));
        }
        Ok(name.to_owned())
    });
    let process = process.transpose()?;
    if pid_file.is_none() && process.is_none() {
        return Err(signal.wrong("`pidFile` or `process` says who gets the signal"));
    }
    let signal = match signal.get("name").map_or(Ok("HUP"), one_of)? {
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "TERM" => Signal::TERM,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "WINCH" => Signal::WINCH,
        _ => Signal::HUP,
    };
    Ok(Recipient { signal, pid_file, process })
}

fn name(section: &Section<'_>) -> Result<String, Error> {
    let field = section.require("name")?;
    let text = field.text()?;
    let fits = text.len() <= 63 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits { Ok(text.to_owned()) } else { Err(field.wrong("expected up to 63 letters, digits and '-'")) }
}

fn absolute(field: &Field<'_>) -> Result<PathBuf, Error> {
    let text = field.text()?;
    let normal = |rest: &str| rest.split('/').all(|part| !matches!(part, "" | "." | "..")) && !rest.contains('\0');
    match text.strip_prefix('/') {
        Some(rest) if normal(rest) => Ok(PathBuf::from(text)),
        _ => Err(field.wrong("expected an absolute path without '.', '..', '//' or a '/' at its end")),
    }
}
