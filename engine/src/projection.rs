// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Files to be: relative paths that cannot escape, owner, mode, bytes.

use std::collections::BTreeMap;
use std::fmt;

use ring::hmac;

use crate::error::Error;
use crate::secret::SecretBytes;
use crate::yaml::shown;

/// Longest name, as the kernel has it (`NAME_MAX`).
const LONGEST_NAME: usize = 255;
/// What a page of tmpfs holds; a file takes whole pages.
const PAGE: u64 = 4096;

/// A path below a volume's root that cannot leave it.
///
/// Relative, no empty, `.` or `..` component, and no component at the root that begins with `..`: those names are ours
/// (generations, `..data`, a local socket).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilePath(String);

impl FilePath {
    /// Longest path of a file in a volume, in bytes.
    pub(crate) const LONGEST: usize = 1024;
    pub(crate) const CONTROL: &str = "may not hold control characters";
    pub(crate) const DOTS: &str = "may not hold '.' or '..'";
    pub(crate) const LONG_NAME: &str = "has a name of more than 255 bytes";
    pub(crate) const NO_NAME: &str = "may not hold '//' or end with '/'";
    pub(crate) const RELATIVE: &str = "must be relative to the volume's root";
    pub(crate) const RESERVED: &str = "may not begin with '..': such names are reserved at a volume's root";

    /// Checks the form.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) with the rule that is broken.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |rule: &str| Err(Error::invalid(format!("file path \"{}\" {rule}", shown(text))));
        if text.is_empty() || text.len() > Self::LONGEST {
            return Err(Error::invalid(format!("a file path has 1 to {} bytes", Self::LONGEST)));
        }
        if text.starts_with('/') {
            return wrong(Self::RELATIVE);
        }
        if text.starts_with("..") {
            return wrong(Self::RESERVED);
        }
        if text.chars().any(char::is_control) {
            return wrong(Self::CONTROL);
        }
        for part in text.split('/') {
            match part {
                "" => return wrong(Self::NO_NAME),
                "." | ".." => return wrong(Self::DOTS),
                long if long.len() > LONGEST_NAME => return wrong(Self::LONG_NAME),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The path below this one; for keys that become names.
    ///
    /// # Errors
    /// As [`FilePath::parse`], and where `name` holds a `/`.
    pub fn join(&self, name: &str) -> Result<Self, Error> {
        if name.contains('/') {
            return Err(Error::invalid(format!(
                "key \"{}\" holds '/', so it cannot be a file name: select it with 'key'",
                shown(name)
            )));
        }
        Self::parse(&format!("{}/{name}", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first component: what appears at the volume's root.
    pub fn root(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Permission bits of a file: read and execute bits, and write for its owner (which a read-only mount denies anyway).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mode(u16);

impl Mode {
    pub(crate) const WRONG: &str = "mode must lie between \"0000\" and \"0777\"";
    /// Root and the pod's group read.
    pub const GROUP_READS: Self = Self(0o440);
    /// Only the owner reads.
    pub const OWNER_READS: Self = Self(0o400);

    /// Checks that only the nine permission bits are used.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) for set-id and sticky bits.
    pub fn new(bits: u32) -> Result<Self, Error> {
        match u16::try_from(bits) {
            Ok(bits) if bits <= 0o777 => Ok(Self(bits)),
            _ => Err(Error::invalid(Self::WRONG)),
        }
    }

    /// The bits.
    pub fn bits(self) -> u16 {
        self.0
    }
}

/// One file to be.
pub struct File {
    /// What it holds.
    pub bytes: SecretBytes,
    /// Permission bits.
    pub mode: Mode,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A complete, consistent set of files.
#[derive(Default)]
pub struct Projection(BTreeMap<FilePath, File>);

impl Projection {
    /// Adds a file.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) where the path exists already, or one would be the folder of the other.
    pub fn add(&mut self, path: FilePath, file: File) -> Result<(), Error> {
        let below = |outer: &FilePath, inner: &FilePath| {
            inner.as_str().strip_prefix(outer.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if let Some(other) = self.0.keys().find(|other| below(other, &path) || below(&path, other)) {
            return Err(Error::invalid(format!(
                "two files would be at {path} and {other}: give one of them another path"
            )));
        }
        self.0.insert(path, file);
        Ok(())
    }

    /// The files in the order of their paths.
    pub fn files(&self) -> impl Iterator<Item = (&FilePath, &File)> {
        self.0.iter()
    }

    /// How many files.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the files take on a tmpfs: whole pages for contents, and a page for each folder and its entries.
    pub fn size_on_tmpfs(&self) -> u64 {
        let pages = |len: usize| (len as u64).div_ceil(PAGE) * PAGE;
        let contents: u64 = self.0.values().map(|file| pages(file.bytes.len())).sum();
        let folders: u64 = self.0.keys().map(|path| path.as_str().matches('/').count() as u64 + 1).sum();
        contents + (folders + 2) * PAGE
    }

    /// A keyed digest of everything a reader could see: equal if and only if the files are. Without the key it says
    /// nothing about the values, so it may be remembered.
    pub fn digest(&self, key: &DigestKey) -> Digest {
        let mut context = hmac::Context::with_key(&key.0);
        for (path, file) in &self.0 {
            for part in [path.as_str().as_bytes(), file.bytes.expose()] {
                context.update(&(part.len() as u64).to_le_bytes());
                context.update(part);
            }
            context.update(&u32::from(file.mode.bits()).to_le_bytes());
            context.update(&file.uid.to_le_bytes());
            context.update(&file.gid.to_le_bytes());
        }
        context.sign().into()
    }
}

/// The key of digests; made anew whenever what remembers digests is.
pub struct DigestKey(hmac::Key);

impl DigestKey {
    /// Takes 32 random bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// What stands for a lease's id, where people are to tell leases apart. No projection has the same one: none has a path
    /// as long as these first eight bytes would say.
    pub fn lease_id(&self, id: &[u8]) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"lease id");
        context.update(id);
        context.sign().into()
    }
}

/// A keyed digest: of a projection, or of a lease's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Digest([u8; 32]);

impl From<hmac::Tag> for Digest {
    fn from(tag: hmac::Tag) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(tag.as_ref());
        Self(digest)
    }
}

/// In hexadecimal.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
