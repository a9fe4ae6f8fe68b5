// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! Names that were checked once and are trusted afterwards: volume ids, credential names, target paths.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name that breaks a rule; says which rule, and for what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {rule}")]
pub struct InvalidName {
    what: &'static str,
    rule: &'static str,
}

/// A CSI volume id this driver accepts: 1–128 characters of `[A-Za-z0-9._-]`, and neither `.` nor `..`.
///
/// The CSI specification allows more; kubelet's ids for inline volumes (`csi-` and 64 hexadecimal digits) fit, and a file
/// name made of one can go nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeId(String);

/// The name of a file directly in the credentials directory: one path component of at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CredentialName(String);

/// Where a volume is to appear: an absolute, normalised path of at most 4096 bytes without NUL.
///
/// That it lies beneath the pods directory is for the warden to check, with the kernel's help.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetPath(String);

/// Where a file lies in its volume: a relative, normalised path of at most 2048 bytes without NUL.
///
/// That it leads through no link is for the warden to check, with the kernel's help.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumePath(String);

impl TryFrom<String> for VolumeId {
    type Error = InvalidName;

    fn try_from(id: String) -> Result<Self, InvalidName> {
        let refuse = |rule| Err(InvalidName { what: "volume id", rule });
        match id.as_str() {
            "" => refuse("is empty"),
            "." | ".." => refuse("is a directory of its own"),
            long if long.len() > 128 => refuse("is longer than 128 characters"),
            other if !other.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) => {
                refuse("has a character outside [A-Za-z0-9._-]")
            }
            _ => Ok(Self(id)),
        }
    }
}

impl TryFrom<String> for CredentialName {
    type Error = InvalidName;

    fn try_from(name: String) -> Result<Self, InvalidName> {
        let refuse = |rule| Err(InvalidName { what: "credential name", rule });
        match name.as_str() {
            "" => refuse("is empty"),
            "." | ".." => refuse("is a directory of its own"),
            long if long.len() > 255 => refuse("is longer than 255 bytes"),
            other if other.contains('/') => refuse("is a path: give the name of a file in the credentials directory"),
            other if other.contains(char::is_control) => refuse("has a control character"),
            _ => Ok(Self(name)),
        }
    }
}

impl TryFrom<String> for TargetPath {
    type Error = InvalidName;

    fn try_from(path: String) -> Result<Self, InvalidName> {
        let refuse = |rule| Err(InvalidName { what: "target path", rule });
        let Some(relative) = path.strip_prefix('/') else { return refuse("is not absolute") };
        if path.len() > 4096 {
            return refuse("is longer than 4096 bytes");
        }
        if path.contains('\0') {
            return refuse("has a NUL byte");
        }
        if relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse("is not normalised: it has an empty, `.` or `..` component");
        }
        Ok(Self(path))
    }
}

impl TryFrom<String> for VolumePath {
    type Error = InvalidName;

    fn try_from(path: String) -> Result<Self, InvalidName> {
        let refuse = |rule| Err(InvalidName { what: "path in a volume", rule });
        if path.len() > 2048 {
            return refuse("is longer than 2048 bytes");
        }
        if path.contains('\0') {
            return refuse("has a NUL byte");
        }
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return refuse("is not relative and normalised: it has an empty, `.` or `..` component");
        }
        Ok(Self(path))
    }
}

macro_rules! text_of {
    ($($name:ident),*) => {$(
        impl $name {
            /// The text that was checked.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::try_from(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

text_of!(VolumeId, CredentialName, TargetPath, VolumePath);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_volume_id_is_one_harmless_file_name() {
        for good in ["csi-0123abcd", "a", "A.b_c-d", "...", &"x".repeat(128)] {
            assert_eq!(good.parse::<VolumeId>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "../a", "a b", "a\0", "é", "a\n", &"x".repeat(129)] {
            assert!(bad.parse::<VolumeId>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_credential_name_is_one_path_component() {
        for good in ["age.key", "token", "..data", "ca bundle.pem"] {
            assert_eq!(good.parse::<CredentialName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "/etc/shadow", "../x", "a\0b", "a\n", &"x".repeat(256)] {
            assert!(bad.parse::<CredentialName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_target_path_is_absolute_and_normalised() {
        for good in ["/a", "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/s/mount", "/a/..data/b"] {
            assert_eq!(good.parse::<TargetPath>().unwrap().as_str(), good);
        }
        let long = format!("/{}", "x/".repeat(2048));
        for bad in ["", "/", "a", "a/b", "/a/", "//a", "/a//b", "/a/./b", "/a/../b", "/..", "/a\0b", long.as_str()] {
            assert!(bad.parse::<TargetPath>().is_err(), "{bad:?} was accepted");
        }
    }
}
