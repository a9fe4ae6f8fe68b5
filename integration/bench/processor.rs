// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! The processor time of another process, to the nanosecond. `/proc` would say it in hundredths of a second, which is as
//! much as an idle plugin takes in a minute.

#![expect(unsafe_code, reason = "rustix has no clock of another process")]

use std::io::Error;
use std::time::Duration;

use anyhow::{Context, Result};
use evanesce_integration::processes::Process;

/// What all threads of a process have taken so far, those that have ended included.
pub(crate) fn time(process: Process) -> Result<Duration> {
    let mut clock = 0;
    // SAFETY: `clock` outlives the call, which writes one `clockid_t` there.
    let failed = unsafe { libc::clock_getcpuclockid(process.pid().as_raw_nonzero().get(), &raw mut clock) };
    if failed != 0 {
        return Err(Error::from_raw_os_error(failed)).context("the clock of a process");
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, which writes one `timespec` there.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(Error::last_os_error()).context("the processor time of a process");
    }
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Instant;

    use rustix::process::getpid;

    use super::*;

    #[test]
    fn a_process_that_works_takes_processor_time() {
        let this = Process::new(getpid());
        let (before, begun) = (time(this).unwrap(), Instant::now());
        while time(this).unwrap() < before + Duration::from_millis(2) {
            assert!(begun.elapsed() < Duration::from_secs(20), "its clock stands still");
        }
    }
}
