// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What a node has and this machine, or this way of running, has not: as the plugin itself found out and logged.

use std::borrow::Cow;

use evanesce_csi::protocol::Reduced;
use evanesce_runtime::metrics::Label as _;
use serde::Deserialize;

/// The mount option that keeps a volume's pages out of swap.
pub(crate) const NOSWAP: &str = "noswap";
/// The group that a pod's files belong to.
pub(crate) const FS_GROUP: &str = "fsGroup";

/// What is missing, in the words of whoever uses a node, and what that means.
pub(crate) struct Lack {
    /// One or two words.
    pub(crate) word: Cow<'static, str>,
    /// A sentence without a full stop.
    pub(crate) meaning: &'static str,
}

/// The part of a log line that is of interest.
#[derive(Deserialize)]
struct Line {
    missing: String,
}

/// Everything that the plugin's log, in its JSON form, says is missing.
pub(crate) fn in_log(log: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.map(|line| explain(&line.missing).word.into_owned()).collect()
}

/// What the plugin's name for it, or our word, means.
pub(crate) fn explain(name: &str) -> Lack {
    let known = [
        (Reduced::Swap, NOSWAP, "a tmpfs here cannot be kept out of swap"),
        (Reduced::SingleUid, "engine uid", "both halves of the plugin run under one uid"),
        (Reduced::FileOwners, FS_GROUP, "files cannot be given to another owner or group"),
        (Reduced::StagedAttach, "staged attach", "a mount is attached privately for a moment before it is cloned"),
        (Reduced::MountCalls, "mount calls", "volumes are made in a private directory and moved to their targets"),
        (Reduced::BackendPorts, "backend ports", "this kernel cannot limit the ports that the engine half connects to"),
    ];
    let found = known.into_iter().find(|(reduced, word, _)| [reduced.as_str(), word].contains(&name));
    match found {
        Some((_, word, meaning)) => Lack { word: word.into(), meaning },
        None => Lack { word: name.to_owned().into(), meaning: "see the plugin's documentation" },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_plugin_misses_is_told_in_words_of_the_node() {
        let log = r#"{"level":"WARN","message":"reduced","missing":"swap","target":"evanesce_csi::warden"}
not JSON
{"level":"INFO","message":"something else","target":"evanesce_csi"}
{"level":"WARN","message":"reduced","missing":"file owners","target":"evanesce_csi::warden"}
{"level":"WARN","message":"reduced","missing":"what a later version misses","target":"evanesce_csi::warden"}"#;
        assert_eq!(in_log(log), [NOSWAP, FS_GROUP, "what a later version misses"]);
    }
}
