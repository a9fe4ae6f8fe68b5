// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Where lines end up: standard output, or a file that somebody else opened.
//!
//! A sink waits for its disk and reports what went wrong; [`log`](super::log) sees to it that nobody else waits and that
//! what was lost is said.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// A place for lines. One thread uses it.
pub trait Sink: Send {
    /// Writes one line, which ends with its newline. After an error the line counts as lost and the next one begins
    /// on a line of its own.
    ///
    /// # Errors
    /// What the place answered.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()>;

    /// Makes what was written last, as far as the place can.
    ///
    /// # Errors
    /// What the place answered.
    fn flush(&mut self) -> io::Result<()>;
}

/// An open file: one that was opened for appending by whoever may (in the node plugin the warden, which passes it
/// down), or standard output, from where the container runtime takes the lines.
pub struct FileSink(Lines<File>);

impl FileSink {
    /// Takes the open file over.
    pub fn new(file: File) -> Self {
        Self(Lines::new(file))
    }

    /// The process's standard output, without the buffer that would join lines of several writes.
    ///
    /// # Errors
    /// Where the descriptor is closed or there is no room for another.
    pub fn stdout() -> io::Result<Self> {
        Ok(Self::new(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }
}

impl Sink for FileSink {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.write_line(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.to.sync_data() {
            // A pipe or a terminal has no disk behind it (fdatasync(2), EINVAL).
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            done => done,
        }
    }
}

/// Lines into a writer, none of them joined to the torn end of the one before.
struct Lines<W> {
    to: W,
    torn: bool,
}

impl<W: Write> Lines<W> {
    fn new(to: W) -> Self {
        Self { to, torn: false }
    }

    /// One write(2) for a line, so that other appenders cannot cut it in two; more only if the kernel took a part.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            self.to.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => return self.tear(rest, line, io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.tear(rest, line, error),
            }
        }
        Ok(())
    }

    fn tear(&mut self, rest: &[u8], line: &[u8], error: io::Error) -> io::Result<()> {
        self.torn = rest.len() < line.len();
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// A disk with so much room.
    struct Disk {
        holds: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= taken;
            self.holds.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_after_a_torn_one_stands_alone() {
        let mut lines = Lines::new(Disk { holds: Vec::new(), room: 9 });
        lines.write_line(b"first\n").unwrap();
        assert_eq!(lines.write_line(b"second\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(lines.write_line(b"third\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        lines.to.room = 100;
        lines.write_line(b"fourth\n").unwrap();
        lines.write_line(b"fifth\n").unwrap();
        assert_eq!(String::from_utf8_lossy(&lines.to.holds), "first\nsec\nfourth\nfifth\n");
    }

    #[test]
    fn a_full_disk_leaves_no_empty_lines() {
        let mut lines = Lines::new(Disk { holds: Vec::new(), room: 0 });
        lines.write_line(b"first\n").unwrap_err();
        lines.to.room = 100;
        lines.write_line(b"second\n").unwrap();
        assert_eq!(lines.to.holds, b"second\n");
    }

    #[test]
    fn a_file_and_a_pipe_can_both_be_flushed() {
        let (_reader, writer) = io::pipe().unwrap();
        for file in [tempfile::tempfile().unwrap(), File::from(std::os::fd::OwnedFd::from(writer))] {
            let mut sink = FileSink::new(file);
            sink.write_line(b"line\n").unwrap();
            sink.flush().unwrap();
        }
    }
}
