// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! `spec` of a `SecretBackend`, from the tree to its type.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::backend::{aws, vault};
use crate::error::Error;
use crate::names::BackendName;
use crate::spec::backend::{
    AllowSpec, AwsSpec, BackendSpec, ClientCertificate, Limits, PemSource, Provider, SealedSpec, VaultAuth, VaultSpec,
};
use crate::spec::keys;
use crate::spec::rules;
use crate::spec::section::{Field, Section};
use crate::spec::values;

/// Reads `spec` of the backend `name`.
pub(super) fn read(field: &Field<'_>, name: BackendName) -> Result<BackendSpec, Error> {
    field.map_of(&keys::BACKEND, |spec| {
        let provider = match (spec.get("aws"), spec.get("sealed"), spec.get("vault")) {
            (Some(aws), None, None) => Provider::Aws(aws.map(aws_spec)?),
            (None, Some(sealed), None) => Provider::Sealed(sealed.map(sealed_spec)?),
            (None, None, Some(vault)) => Provider::Vault(Box::new(vault.map(vault_spec)?)),
            _ => return Err(spec.breaks(&rules::ONE_PROVIDER)),
        };
        let entries = spec.require("allow")?.items()?;
        let allow = |entry: &Field<'_>| {
            let allow = entry.map(|entry| allow(entry, &provider))?;
            // Of names `**` is the same; of secrets it is refused.
            let all = |patterns: &[String]| patterns.iter().any(|pattern| pattern.bytes().all(|byte| byte == b'*'));
            if !provider.knows_pods() && all(&allow.namespaces) && all(&allow.secrets) {
                return Err(entry.wrong(rules::EVERYTHING_FOR_ALL.words));
            }
            Ok(allow)
        };
        let allow = entries.iter().map(allow).collect::<Result<_, _>>()?;
        Ok(BackendSpec {
            name,
            provider,
            allow,
            limits: spec.get("limits").map_or_else(|| Ok(Limits::default()), |it| it.map(limits))?,
        })
    })
}

fn aws_spec(aws: &Section<'_>) -> Result<AwsSpec, Error> {
    let (role, audience) = aws.require("auth")?.map(|auth| {
        auth.require("webIdentity")?.map(|it| {
            let role = it.require("role")?;
            role.parse(aws::check_role)?;
            let audience = it.get("audience").map_or(Ok(AwsSpec::DEFAULT_AUDIENCE), Field::text)?;
            Ok((values::role(role)?, audience.to_owned()))
        })
    })?;
    Ok(AwsSpec {
        region: aws.require("region")?.parse(|text| aws::check_region(text).map(|()| text.to_owned()))?,
        role,
        audience,
        endpoint: aws.get("endpoint").map(address).transpose()?,
        sts_endpoint: aws.get("stsEndpoint").map(address).transpose()?,
        ca: ca(aws)?,
    })
}

/// Whom to trust, of a map that may say so in two ways.
fn ca(section: &Section<'_>) -> Result<Option<PemSource>, Error> {
    match (section.get("caBundle"), section.get("caFile")) {
        (Some(_), Some(_)) => Err(section.breaks(&rules::ONE_CA)),
        (Some(bundle), None) => Ok(Some(PemSource::Inline(certificates(bundle)?))),
        (None, Some(file)) => Ok(Some(PemSource::File(values::file_name(file)?))),
        (None, None) => Ok(None),
    }
}

fn vault_spec(vault: &Section<'_>) -> Result<VaultSpec, Error> {
    let (kv_mounts, kv1_mounts) = kv_mounts(vault)?;
    let spec = VaultSpec {
        addresses: addresses(vault)?,
        ca: ca(vault)?,
        client_certificate: client_certificate(vault)?,
        namespace: vault.get("namespace").map(values::server_namespace).transpose()?,
        auth: vault.require("auth")?.map(auth)?,
        kv_mounts,
        kv1_mounts,
    };
    match &spec.client_certificate {
        None if matches!(spec.auth, VaultAuth::Cert { .. }) => Err(vault.breaks(&rules::LOGIN_WITHOUT_CERTIFICATE)),
        Some(_) if !spec.addresses.iter().all(|it| is_tls(it)) => Err(vault.breaks(&rules::CERTIFICATE_WITHOUT_TLS)),
        _ => Ok(spec),
    }
}

/// The KV mounts of version 2 and of version 1.
fn kv_mounts(vault: &Section<'_>) -> Result<(Vec<String>, Vec<String>), Error> {
    let mounts = |field: &Field<'_>| field.items()?.iter().map(values::mount).collect::<Result<Vec<_>, _>>();
    let version_1 = vault.get("kv1Mounts").map(mounts).transpose()?.unwrap_or_default();
    let version_2 = match vault.get("kvMounts").map(mounts).transpose()? {
        Some(written) if written.iter().any(|mount| version_1.contains(mount)) => {
            return Err(vault.breaks(&rules::ONE_KV_VERSION));
        }
        Some(written) => written,
        None => VaultSpec::DEFAULT_KV_MOUNTS.map(str::to_owned).into(),
    };
    Ok((version_2.into_iter().filter(|mount| !version_1.contains(mount)).collect(), version_1))
}

fn client_certificate(vault: &Section<'_>) -> Result<Option<ClientCertificate>, Error> {
    match (vault.get("clientCertFile"), vault.get("clientKeyFile")) {
        (Some(file), Some(key)) => {
            Ok(Some(ClientCertificate { file: values::file_name(file)?, key_file: values::file_name(key)? }))
        }
        (None, None) => Ok(None),
        _ => Err(vault.breaks(&rules::CERTIFICATE_AND_KEY)),
    }
}

fn auth(auth: &Section<'_>) -> Result<VaultAuth, Error> {
    let ways = ["kubernetes", "jwt", "appRole", "cert", "tokenFile"].map(|way| auth.get(way));
    let [Some(way)] = ways.into_iter().filter(Option::is_some).collect::<Vec<_>>()[..] else {
        return Err(auth.breaks(&rules::ONE_LOGIN));
    };
    let mount = |it: &Section<'_>, default: &str| it.get("mount").map_or_else(|| Ok(default.to_owned()), values::mount);
    let role = |it: &Section<'_>| values::role(it.require("role")?);
    let audience = |it: &Section<'_>| it.get("audience").map_or(Ok("vault"), Field::text).map(str::to_owned);
    match way.name() {
        "kubernetes" => way.map(|it| {
            Ok(VaultAuth::Kubernetes { mount: mount(it, "kubernetes")?, role: role(it)?, audience: audience(it)? })
        }),
        "jwt" => way.map(|it| {
            Ok(VaultAuth::Jwt {
                mount: mount(it, "jwt")?,
                role: role(it)?,
                audience: audience(it)?,
                share_pods: it.get("sharePods").map_or(Ok(false), Field::boolean)?,
            })
        }),
        "appRole" => way.map(|it| {
            Ok(VaultAuth::AppRole {
                mount: mount(it, "approle")?,
                role_id_file: values::file_name(it.require("roleIdFile")?)?,
                secret_id_file: values::file_name(it.require("secretIdFile")?)?,
            })
        }),
        "cert" => way.map(|it| {
            Ok(VaultAuth::Cert { mount: mount(it, "cert")?, role: it.get("role").map(values::mount).transpose()? })
        }),
        _ => Ok(VaultAuth::TokenFile { file: values::file_name(way)? }),
    }
}

/// One address, or several of one cluster.
fn addresses(vault: &Section<'_>) -> Result<Vec<String>, Error> {
    let (list, items) = match (vault.get("address"), vault.get("addresses")) {
        (Some(one), None) => return Ok(vec![address(one)?]),
        (None, Some(list)) => (list, list.items()?),
        (Some(_), Some(_)) => return Err(vault.breaks(&rules::ONE_WAY_TO_ADDRESS)),
        (None, None) => return Err(vault.breaks(&rules::NO_ADDRESS)),
    };
    let mut addresses = Vec::with_capacity(items.len());
    for item in &items {
        let address = address(item)?;
        if addresses.contains(&address) {
            return Err(item.wrong(rules::SAME_ADDRESS.words));
        }
        addresses.push(address);
    }
    if addresses.iter().any(|it| is_tls(it)) && !addresses.iter().all(|it| is_tls(it)) {
        return Err(list.wrong(rules::ALL_TLS.words));
    }
    Ok(addresses)
}

fn is_tls(address: &str) -> bool {
    address.starts_with("https:")
}

/// `scheme://host[:port]`. A rejected address is not quoted: it may hold a password.
fn address(field: &Field<'_>) -> Result<String, Error> {
    let wrong = || field.wrong(values::ADDRESS);
    let text = field.text()?;
    let url = reqwest::Url::parse(text).map_err(|_| wrong())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
        && matches!(url.path(), "" | "/");
    // What a browser mends, `https:host` or a line end, is no address that somebody meant.
    let mended = !text.contains("://") || text.contains(char::is_whitespace);
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() || !plain || mended {
        return Err(wrong());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// PEM text with certificates and nothing that has no business in a class.
fn certificates(field: &Field<'_>) -> Result<String, Error> {
    let text = field.text()?;
    if text.contains("PRIVATE KEY") {
        return Err(field.wrong(values::PRIVATE_KEY));
    }
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match certificates {
        Ok(some) if !some.is_empty() => Ok(text.to_owned()),
        _ => Err(field.wrong(values::CERTIFICATES)),
    }
}

fn sealed_spec(sealed: &Section<'_>) -> Result<SealedSpec, Error> {
    let directory = sealed.require("directory")?;
    let path = directory.text()?;
    let plain = path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    if !path.starts_with('/') || !plain || path.chars().any(char::is_control) {
        return Err(directory.wrong(values::FOLDER));
    }
    Ok(SealedSpec { directory: path.to_owned(), identity_file: values::file_name(sealed.require("identityFile")?)? })
}

fn allow(entry: &Section<'_>, provider: &Provider) -> Result<AllowSpec, Error> {
    let list = |name, one: &dyn Fn(&Field<'_>) -> Result<String, Error>| {
        let items = entry.require(name)?.items()?;
        items.iter().map(one).collect::<Result<Vec<_>, _>>()
    };
    let secret = |field: &Field<'_>| {
        let pattern = values::secret_pattern(field)?;
        let fits = match provider {
            Provider::Aws(aws) => aws::check_pattern(&aws.region, &pattern),
            Provider::Sealed(_) => Ok(()),
            Provider::Vault(vault) => vault::check_pattern(vault, &pattern),
        };
        fits.map_err(|error| field.explain(&error))?;
        Ok(pattern)
    };
    let role = match entry.get("role") {
        Some(role) if !provider.knows_pods() => {
            return Err(role.wrong(rules::ROLE_WITHOUT_LOGIN.words));
        }
        Some(role) => {
            if let Provider::Aws(_) = provider {
                role.parse(aws::check_role)?;
            }
            Some(values::role(role)?)
        }
        None => None,
    };
    Ok(AllowSpec {
        namespaces: list("namespaces", &values::name_pattern)?,
        service_accounts: list("serviceAccounts", &values::name_pattern)?,
        secrets: list("secrets", &secret)?,
        role,
    })
}

fn limits(limits: &Section<'_>) -> Result<Limits, Error> {
    let defaults = Limits::default();
    let (per_node, per_second) = (limits.get("parallelPerNode"), limits.get("requestsPerSecond"));
    Ok(Limits {
        timeout: limits.get("timeout").map_or(Ok(defaults.timeout), values::duration)?,
        parallel: limits.get("parallel").map_or(Ok(defaults.parallel), Field::number)?,
        parallel_per_node: per_node.map_or(Ok(defaults.parallel_per_node), Field::number)?,
        requests_per_second: per_second.map_or(Ok(defaults.requests_per_second), Field::number)?,
        offline_grace: limits.get("offlineGrace").map(values::duration).transpose()?,
        reuse: limits.get("reuse").map_or(Ok(defaults.reuse), values::duration)?,
    })
}
