// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Which uids exist here. In the first user namespace all do; in a rootless container some, or one.

use std::io;

/// `/proc/self/uid_map` (user_namespaces(7)): ranges of uids that exist in this namespace.
#[derive(Debug)]
pub(super) struct UidMap {
    ranges: Vec<(u32, u32)>,
}

impl UidMap {
    /// This process's.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub(super) fn ours() -> io::Result<Self> {
        let text = std::fs::read_to_string("/proc/self/uid_map")
            .map_err(|error| io::Error::other(format!("/proc/self/uid_map: {error}: mount /proc")))?;
        Ok(Self::parse(&text))
    }

    /// Whether there is a single uid, so that nobody can be anybody else.
    #[must_use]
    pub(super) fn has_one_uid(&self) -> bool {
        self.ranges.iter().map(|(_, length)| u64::from(*length)).sum::<u64>() == 1
    }

    /// Whether this uid exists.
    #[must_use]
    pub(super) fn contains(&self, uid: u32) -> bool {
        self.ranges.iter().any(|(first, length)| uid.checked_sub(*first).is_some_and(|offset| offset < *length))
    }

    fn parse(text: &str) -> Self {
        let range = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().map(|number| number.parse().ok());
            let (first, _outside, length) = (numbers.next()??, numbers.next()?, numbers.next()??);
            Some((first, length))
        };
        Self { ranges: text.lines().filter_map(range).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_tells_which_uids_exist() {
        let first = UidMap::parse("         0          0 4294967295\n");
        assert!(first.contains(60999) && !first.has_one_uid());
        let rootless = UidMap::parse("0 1000 1\n1 100000 65536\n");
        assert!(rootless.contains(60999) && rootless.contains(65536) && !rootless.contains(65537));
        assert!(!rootless.has_one_uid());
        let single = UidMap::parse("0 1000 1\n");
        assert!(single.has_one_uid() && single.contains(0) && !single.contains(60999));
    }
}
