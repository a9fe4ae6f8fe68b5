// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! How AWS names things: regions and their endpoints, secrets, versions, roles.
//!
//! A secret is asked for by its name or by its whole ARN, and what is written is what is sent as `SecretId`. The two are two
//! paths to policy: an entry for the name does not let one ask by ARN, and the other way round.

use crate::error::Error;
use crate::policy::Grant;
use crate::secret_ref::{SecretRef, WirePath};
use crate::spec::backend::AwsSpec;
use crate::yaml::shown;

/// Characters of a secret's name besides letters and digits (CreateSecret); `!` is in those that other services of AWS manage.
const ALSO: &[u8] = b"/_+=.@-!";
/// What is said of a region's name that is none, after the name.
pub(crate) const NOT_A_REGION: &str = "is none of AWS: write it as AWS does, eu-central-1";
/// The stage that the version in use has.
const CURRENT: &str = "AWSCURRENT";
const VERSION_ID: &str = "versionId";
const VERSION_STAGE: &str = "versionStage";

/// The suffix of the public endpoints of a region, by its name's beginning; of all others it is `amazonaws.com`.
const PARTITIONS: [(&str, &str); 6] = [
    ("cn-", "amazonaws.com.cn"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("eusc-", "amazonaws.eu"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
];

/// The addresses of Secrets Manager and STS: those that a class names, or the region's public ones.
pub(crate) fn endpoints(spec: &AwsSpec) -> [String; 2] {
    [("secretsmanager", &spec.endpoint), ("sts", &spec.sts_endpoint)]
        .map(|(service, given)| given.clone().unwrap_or_else(|| public_endpoint(service, &spec.region)))
}

fn public_endpoint(service: &str, region: &str) -> String {
    let partition = PARTITIONS.iter().find(|(beginning, _)| region.starts_with(beginning));
    format!("https://{service}.{region}.{}", partition.map_or("amazonaws.com", |(_, suffix)| suffix))
}

/// A region's name becomes part of a host's name.
pub(crate) fn check_region(region: &str) -> Result<(), Error> {
    let fits =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if region.contains('-') && region.len() <= 32 && region.split('-').all(fits) {
        return Ok(());
    }
    Err(Error::invalid(format!("region \"{}\" {NOT_A_REGION}", shown(region))))
}

/// A role is named by its ARN, because it may be another account's.
pub(crate) fn check_role(role: &str) -> Result<(), Error> {
    let mut parts = role.splitn(6, ':');
    let fits = parts.next() == Some("arn")
        && parts.next().is_some_and(|partition| partition.starts_with("aws"))
        && parts.next() == Some("iam")
        && parts.next() == Some("")
        && parts.next().is_some_and(|account| !account.is_empty())
        && parts.next().and_then(|name| name.strip_prefix("role/")).is_some_and(|name| !name.is_empty());
    if fits {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "role \"{}\" is not the ARN of an IAM role: write arn:aws:iam::ACCOUNT:role/NAME",
        shown(role)
    )))
}

/// The `SecretId` of a reference whose version AWS can mean.
pub(super) fn canonical(region: &str, reference: &SecretRef) -> Result<WirePath, Error> {
    let SecretRef { backend: _, path, version, args } = reference;
    if version.is_some() {
        return Err(Error::invalid(format!(
            "AWS does not number versions: remove 'version' from {path}, and choose one by args.{VERSION_ID} or \
             args.{VERSION_STAGE}"
        )));
    }
    for (name, value) in args {
        let fits = match name.as_str() {
            VERSION_ID => {
                (32..=64).contains(&value.len())
                    && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            }
            VERSION_STAGE => (1..=256).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic()),
            _ => {
                return Err(Error::invalid(format!(
                    "args.{} has no meaning to AWS: a read of {path} takes {VERSION_ID} and {VERSION_STAGE}",
                    shown(name)
                )));
            }
        };
        if !fits {
            return Err(Error::invalid(format!(
                "args.{name} of {path} is none: a {VERSION_ID} has 32 to 64 letters, digits and '-', a {VERSION_STAGE} \
                 such as AWSPREVIOUS up to 256 characters without spaces"
            )));
        }
    }
    let path = path.as_str();
    check(region, path, b"")?;
    if path.starts_with("arn:") && !is_whole(path) {
        return Err(Error::invalid(format!(
            "\"{}\" is a part of an ARN: write all of it, with the six characters at its end, or the secret's name",
            shown(path)
        )));
    }
    Ok(WirePath::new(path.to_owned()))
}

/// Whether an allow pattern can fit anything.
pub(crate) fn check_pattern(region: &str, pattern: &str) -> Result<(), Error> {
    if pattern == "*" { Ok(()) } else { check(region, pattern, b"*") }
}

/// The form of a name or an ARN, in which a name may have these characters too.
fn check(region: &str, path: &str, too: &[u8]) -> Result<(), Error> {
    let (name, longest) = match path.strip_prefix("arn:") {
        None => (path, 512),
        Some(arn) => {
            let parts: Vec<_> = arn.splitn(6, ':').collect();
            let [partition, "secretsmanager", of, account, "secret", name] = parts.as_slice() else {
                return Err(Error::invalid(format!(
                    "\"{}\" is not the ARN of a secret: write arn:aws:secretsmanager:{region}:ACCOUNT:secret:NAME-SUFFIX",
                    shown(path)
                )));
            };
            if partition.is_empty() || account.is_empty() {
                return Err(Error::invalid(format!("\"{}\" has no partition or no account", shown(path))));
            }
            if *of != region {
                return Err(Error::invalid(format!(
                    "\"{}\" is a secret of region {}, and this backend asks {region}: use a backend of that region",
                    shown(path),
                    shown(of)
                )));
            }
            (*name, 512 + 7)
        }
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || ALSO.contains(&byte) || too.contains(&byte);
    if name.is_empty() || name.len() > longest || !name.bytes().all(fits) {
        return Err(Error::invalid(format!(
            "\"{}\" cannot be a secret of AWS: a name has 1 to 512 letters, digits and any of /_+=.@-!",
            shown(path)
        )));
    }
    Ok(())
}

/// Whether an ARN ends as AWS ends them all. A part of one is taken by AWS too, and may mean another secret tomorrow.
fn is_whole(arn: &str) -> bool {
    arn.rsplit_once('-')
        .is_some_and(|(_, suffix)| suffix.len() == 6 && suffix.bytes().all(|it| it.is_ascii_alphanumeric()))
}

/// Which version of a secret is meant.
pub(super) struct Wanted<'a> {
    /// By its id.
    pub(super) id: Option<&'a str>,
    /// By a stage that it has; always one of the two.
    pub(super) stage: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// What a reference says. Without a word about it the stage is named all the same: then what is asked of `GetSecretValue` is
    /// what is looked for in `DescribeSecret`.
    pub(super) fn of(grant: &'a Grant) -> Self {
        let args = &grant.reference().args;
        let arg = |name| args.get(name).map(String::as_str);
        let id = arg(VERSION_ID);
        Self { id, stage: arg(VERSION_STAGE).or_else(|| id.is_none().then_some(CURRENT)) }
    }

    /// The version as it is compared. Versions of one secret are compared whatever stage was asked for, so those that another
    /// stage has led to carry its name.
    pub(super) fn version(&self, id: &str) -> String {
        match self.stage {
            None | Some(CURRENT) => id.to_owned(),
            Some(stage) => format!("{stage}:{id}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::names::BackendName;
    use crate::secret_ref::SecretPath;

    fn asked(path: &str, version: Option<u64>, args: &[(&str, &str)]) -> Result<String, Error> {
        let reference = SecretRef {
            backend: BackendName::parse("aws").unwrap(),
            path: SecretPath::parse(path).unwrap(),
            version,
            args: args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        canonical("eu-central-1", &reference).map(|path| path.as_str().to_owned())
    }

    #[test]
    fn a_secret_is_asked_for_as_it_is_written() {
        let arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:payments/db-AbC123";
        for path in ["db", "payments/db", "rds!cluster-1", "a_b+c=d.e@f-g", arn] {
            assert_eq!(asked(path, None, &[]).unwrap(), path);
        }
    }

    #[test]
    fn what_cannot_be_a_secret_of_this_backend_says_how_to_write_it() {
        for (path, cure) in [
            ("a:b", "letters, digits"),
            ("a~b", "letters, digits"),
            ("arn:aws:secretsmanager:eu-central-1:1:secret:db", "all of it"),
            ("arn:aws:secretsmanager:us-east-1:1:secret:db-AbC123", "a backend of that region"),
            ("arn:aws:ssm:eu-central-1:1:parameter/db", "is not the ARN of a secret"),
            ("arn:aws:secretsmanager:eu-central-1:1:secret", "is not the ARN of a secret"),
        ] {
            let error = asked(path, None, &[]).unwrap_err();
            assert!(error.message().contains(cure), "{path}: {error}");
        }
        assert!(asked("db", Some(1), &[]).unwrap_err().message().contains("args.versionId"));
        assert!(asked("db", None, &[("stage", "x")]).unwrap_err().message().contains("versionStage"));
        assert!(asked("db", None, &[("versionId", "7")]).unwrap_err().message().contains("32 to 64"));
        assert!(asked("db", None, &[("versionStage", "AWSPREVIOUS")]).is_ok());
    }

    #[test]
    fn a_pattern_that_nothing_can_match_is_refused() {
        for good in ["*", "payments/*", "arn:aws:secretsmanager:eu-central-1:1:secret:payments/*"] {
            assert!(check_pattern("eu-central-1", good).is_ok(), "{good}");
        }
        for bad in ["payments:x/*", "arn:aws:secretsmanager:us-east-1:1:secret:payments/*"] {
            assert!(check_pattern("eu-central-1", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_region_leads_to_its_own_partition() {
        for (region, endpoint) in [
            ("eu-central-1", "https://sts.eu-central-1.amazonaws.com"),
            ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
            ("us-isob-east-1", "https://sts.us-isob-east-1.sc2s.sgov.gov"),
        ] {
            check_region(region).unwrap();
            assert_eq!(public_endpoint("sts", region), endpoint);
        }
        for bad in ["", "eu", "eu-", "eu-central-1.evil.example", "EU-central-1", "eu/central-1"] {
            assert!(check_region(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_role_is_an_arn_of_iam() {
        for good in
            ["arn:aws:iam::111122223333:role/app", "arn:aws-cn:iam::1:role/team/app", "arn:aws:iam::1:role/{namespace}"]
        {
            assert!(check_role(good).is_ok(), "{good}");
        }
        for bad in [
            "app",
            "arn:aws:iam::1:user/app",
            "arn:aws:iam::1:role/",
            "arn:aws:sts::1:role/app",
            "arn:aws:iam:::role/app",
        ] {
            assert!(check_role(bad).is_err(), "{bad}");
        }
    }
}
