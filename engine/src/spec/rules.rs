// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! What has to hold between the keys of a map: the words that the readers say, and the same as a rule for the API server.

/// What has to hold between keys.
#[derive(Debug)]
pub struct Rule {
    /// What is said where it does not, by the readers and by the API server.
    pub words: &'static str,
    /// The rule as the API server judges it (Common Expression Language); `self` is the map.
    pub cel: &'static str,
}

pub(super) static ONE_PROVIDER: Rule = Rule {
    words: "exactly one of `aws`, `sealed` and `vault` says where the secrets are",
    cel: "[has(self.aws), has(self.sealed), has(self.vault)].exists_one(it, it)",
};
pub(super) static ROLE_WITHOUT_LOGIN: Rule = Rule {
    words: "only a backend with `auth.kubernetes`, `auth.jwt` or `auth.webIdentity` logs in with a role",
    cel: "has(self.aws) || has(self.vault) && (has(self.vault.auth.kubernetes) || has(self.vault.auth.jwt)) || self.allow.all(entry, !has(entry.role))",
};
/// Who can make a pod anywhere could read whatever the platform's credential can.
pub(super) static EVERYTHING_FOR_ALL: Rule = Rule {
    words: "where no pod logs in as itself, an entry for all namespaces has to name its secrets: nothing else tells pods apart",
    cel: "has(self.aws) || has(self.vault) && (has(self.vault.auth.kubernetes) || has(self.vault.auth.jwt)) || self.allow.all(entry, !('*' in entry.namespaces && '*' in entry.secrets))",
};
pub(super) static ONE_CA: Rule =
    Rule { words: "`caBundle` and `caFile` exclude each other", cel: "!(has(self.caBundle) && has(self.caFile))" };
pub(super) static ONE_WAY_TO_ADDRESS: Rule =
    Rule { words: "`address` and `addresses` exclude each other", cel: "!(has(self.address) && has(self.addresses))" };
pub(super) static NO_ADDRESS: Rule =
    Rule { words: "`address` is missing, or `addresses` for several", cel: "has(self.address) || has(self.addresses)" };
pub(super) static SAME_ADDRESS: Rule = Rule {
    words: "is there twice",
    cel: "!has(self.addresses) || self.addresses.all(one, self.addresses.exists_one(other, one == other))",
};
pub(super) static ALL_TLS: Rule = Rule {
    words: "all of them are https://, or all http://",
    cel: "!has(self.addresses) || self.addresses.all(it, it.lowerAscii().startsWith('https:')) || self.addresses.all(it, it.lowerAscii().startsWith('http:'))",
};
pub(super) static ONE_LOGIN: Rule = Rule {
    words: "exactly one of `kubernetes`, `jwt`, `appRole`, `cert` and `tokenFile` says how to log in",
    cel: "[has(self.kubernetes), has(self.jwt), has(self.appRole), has(self.cert), has(self.tokenFile)].exists_one(it, it)",
};
pub(super) static CERTIFICATE_AND_KEY: Rule = Rule {
    words: "`clientCertFile` and `clientKeyFile` belong together",
    cel: "has(self.clientCertFile) == has(self.clientKeyFile)",
};
pub(super) static LOGIN_WITHOUT_CERTIFICATE: Rule = Rule {
    words: "`auth.cert` logs in with the certificate of `clientCertFile`: set it",
    cel: "!has(self.auth.cert) || has(self.clientCertFile)",
};
pub(super) static CERTIFICATE_WITHOUT_TLS: Rule = Rule {
    words: "`clientCertFile` has no meaning for an http:// address: use https://",
    cel: "!has(self.clientCertFile) || (!has(self.address) || !self.address.lowerAscii().startsWith('http:')) && (!has(self.addresses) || !self.addresses.exists(it, it.lowerAscii().startsWith('http:')))",
};
pub(super) static ONE_KV_VERSION: Rule = Rule {
    words: "a mount of `kv1Mounts` is not one of `kvMounts` too: a KV mount has one version",
    cel: "!has(self.kv1Mounts) || !has(self.kvMounts) || self.kv1Mounts.all(it, !(it in self.kvMounts))",
};
pub(super) static STALE_TOO_SOON: Rule = Rule {
    words: "`maxStale` is not longer than `refresh.every`, so the first refresh that fails would be the end: raise it, or refresh more often",
    cel: "!has(self.maxStale) || duration(self.maxStale) > duration(has(self.refresh) && has(self.refresh.every) ? self.refresh.every : '5m')",
};
pub(super) static STALE_WITHOUT_END: Rule = Rule {
    words: "`onStale` says what becomes of files that are older than `maxStale`: set that too",
    cel: "!has(self.onStale) || has(self.maxStale)",
};
pub(super) static KEY_OR_KEYS: Rule = Rule {
    words: "`allKeys` and `from.key` exclude each other",
    cel: "!(has(self.allKeys) && self.allKeys && has(self.from.key))",
};
pub(super) static FORMAT_OF_A_WHOLE: Rule = Rule {
    words: "`format` is that of a whole secret in one file: it excludes `allKeys` and `from.key`",
    cel: "!has(self.format) || !(has(self.allKeys) && self.allKeys) && !has(self.from.key)",
};
pub(super) static PASSWORD_OF_WHAT: Rule = Rule {
    words: "`passwordFrom` says with which password a key store is written: it needs `format: pkcs12`",
    cel: "!has(self.passwordFrom) || has(self.format) && self.format == 'pkcs12'",
};
/// Folders of files may be shared: which names they hold is known later. Each is compared with each, so the API server's
/// budget for one rule ends here, at 64 files with the longest of paths.
pub(super) static ONE_PLACE: Rule = Rule {
    words: "two files at one place",
    cel: "self.files.size() > 64 || self.files.all(it, has(it.allKeys) && it.allKeys || self.files.exists_one(other, (other.path + '/').startsWith(it.path + '/')))",
};
