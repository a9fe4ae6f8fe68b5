// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// The longest wish that is honoured: a typing error in a proxy must not stop a volume's refreshes for a year.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long to wait, seen from `now`; nothing for what cannot be read.
pub(crate) fn parse(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let wait = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long time, not nonsense.
        if text.is_empty() { None } else { Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX))) }
    } else {
        // The preferred form of an HTTP date is one of RFC 2822's; the two obsolete forms are not worth a parser.
        let date: SystemTime = OffsetDateTime::parse(text, &Rfc2822).ok()?.into();
        Some(date.duration_since(now).unwrap_or_default())
    };
    wait.map(|wait| wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_nonsense_is_not() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(3600)),
            ("86400", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(parse(text, now), seconds.map(Duration::from_secs), "{text:?}");
        }
    }
}
