// SPDX-FileCopyrightText: The Evanesce Authors
// SPDX-License-Identifier: Apache-2.0

//! An HTTP proxy on the way to backends: it is asked to `CONNECT`, and sees the host's name and nothing more.
//!
//! For `https://` addresses alone: a request in the clear would show it tokens. The proxy of the process's environment is
//! never used; which one there is comes with the configuration.

use reqwest::{NoProxy, Proxy, Url};

use crate::error::Error;

/// A proxy, and the hosts that are reached without it.
#[derive(Clone)]
pub struct HttpsProxy {
    url: Url,
    except: String,
}

impl HttpsProxy {
    /// Checks the proxy's address. `except` lists host names, domains, addresses and networks, separated by commas.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), without the address: it may hold a password.
    pub fn parse(url: &str, except: &str) -> Result<Self, Error> {
        let wrong = |what: &str| Err(Error::invalid(format!("{what}: write http://host:port")));
        let Ok(url) = Url::parse(url) else { return wrong("the proxy's address is no URL") };
        if !url.username().is_empty() || url.password().is_some() {
            return wrong("a proxy with a user name or a password is not supported");
        }
        let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        if url.scheme() != "http" || url.host_str().is_none() || !bare {
            return wrong("the proxy's address is not one of an HTTP proxy");
        }
        Ok(Self { url, except: except.to_owned() })
    }

    /// Its address, which holds no password.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The hosts that are reached without it, separated by commas.
    pub fn except(&self) -> &str {
        &self.except
    }

    /// The TCP port to connect to.
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(80)
    }

    /// As the client wants it.
    pub(crate) fn to_client(&self) -> reqwest::Result<Proxy> {
        Ok(Proxy::https(self.url.clone())?.no_proxy(NoProxy::from_string(&self.except)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn an_address_is_that_of_an_http_proxy_and_no_error_holds_a_password() {
        assert_eq!(HttpsProxy::parse("http://proxy.example:3128", "").unwrap().port(), 3128);
        assert_eq!(HttpsProxy::parse("http://proxy.example/", "").unwrap().port(), 80);
        for bad in [
            "",
            "proxy.example:3128",
            "https://proxy.example",
            "socks5://proxy.example",
            "http://proxy.example/path",
            "http://app:canary@proxy.example:3128",
            "http://app@proxy.example",
        ] {
            let error = HttpsProxy::parse(bad, "").err().unwrap();
            assert!(
                error.message().contains("http://host:port") && !error.message().contains("canary"),
                "{bad}: {error}"
            );
        }
    }
}
