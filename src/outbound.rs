//! HTTP to servers that others have named: webhooks' receivers, push services. Never to a forbidden
//! address.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use reqwest::{
    Client, ClientBuilder, Response,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use url::{Host, Url};

use crate::{
    net::is_public,
    tls::{self, TlsError},
};

/// How long an idle connection is kept: receivers close theirs after a similar time.
const KEEP: Duration = Duration::from_secs(30);

/// Why there was no answer. Short, because it is stored in the database and shown to operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("no answer in time")]
    TimedOut,
    #[error("its host has private addresses only")]
    Private,
    #[error("no connection")]
    Unreachable,
    #[error("the connection broke")]
    Broken,
}

impl From<reqwest::Error> for Failure {
    /// reqwest's own text contains the URL, which must not be logged.
    fn from(error: reqwest::Error) -> Self {
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            if inner.is::<NoPublicAddress>() {
                return Self::Private;
            }
            cause = inner.source();
        }
        match error {
            _ if error.is_timeout() => Self::TimedOut,
            _ if error.is_connect() => Self::Unreachable,
            _ => Self::Broken,
        }
    }
}

/// What is wrong with a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlFault {
    Scheme,
    Credentials,
    /// A private address. The one behind a host name is checked whenever it is resolved.
    Private,
}

/// Checks a URL that others have named: `https://`, without a user and a password, since URLs show in
/// logs, and of no private address. `private` allows those, and `http://`.
pub fn check_url(url: &Url, private: bool) -> Result<(), UrlFault> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        Some(Host::Domain(_)) => None,
        None => return Err(UrlFault::Scheme),
    };
    if url.scheme() != "https" && !(private && url.scheme() == "http") {
        return Err(UrlFault::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlFault::Credentials);
    }
    if !private && address.is_some_and(|address| !is_public(address)) {
        return Err(UrlFault::Private);
    }
    Ok(())
}

/// Begins a client that follows no redirect, as only the URL itself was checked. Without `private` it
/// speaks HTTPS to public addresses only. `protocols` are offered in the handshake, none for HTTP/1.1.
pub fn client(
    ca: Option<&Path>,
    protocols: &[&str],
    private: bool,
    timeout: Duration,
) -> Result<ClientBuilder, TlsError> {
    let mut tls = tls::client_config(ca)?;
    tls.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(Policy::none())
        .no_proxy()
        .user_agent(concat!("Beseda/", env!("CARGO_PKG_VERSION")))
        .pool_idle_timeout(KEEP)
        .timeout(timeout);
    Ok(if private { builder } else { builder.https_only(true).dns_resolver(Arc::new(PublicOnly)) })
}

/// Reads a body up to about `most` bytes, so that its connection can be used again. What could be read
/// if it breaks off.
pub async fn read_body(mut answer: Response, most: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > most {
            break;
        }
    }
    body
}

/// Resolves names to public addresses only, because the owner of a name decides where it points.
struct PublicOnly;

#[derive(Debug, thiserror::Error)]
#[error("no public address")]
struct NoPublicAddress;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|it| is_public(it.ip())).collect();
            if public.is_empty() {
                return Err(NoPublicAddress.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_of_this_machine_leads_nowhere() {
        let name = "localhost".parse().expect("a name");
        let resolved = PublicOnly.resolve(name).await;
        assert!(resolved.err().is_some_and(|error| error.is::<NoPublicAddress>()));
    }

    #[test]
    fn a_url_leads_to_nobodys_private_network() {
        let check = |url: &str, private| check_url(&url.parse().expect("a URL"), private);
        assert_eq!(check("https://push.example.com/abc", false), Ok(()));
        assert_eq!(check("https://8.8.8.8/", false), Ok(()));
        for (url, fault) in [
            ("http://push.example.com/", UrlFault::Scheme),
            ("file:///etc/passwd", UrlFault::Scheme),
            ("https://me@push.example.com/", UrlFault::Credentials),
            ("https://2130706433/", UrlFault::Private),
            ("https://[::ffff:10.0.0.1]/", UrlFault::Private),
        ] {
            assert_eq!(check(url, false), Err(fault), "{url}");
        }
        assert_eq!(check("http://127.0.0.1:8000/", true), Ok(()));
        assert_eq!(check("ftp://127.0.0.1/", true), Err(UrlFault::Scheme));
    }
}
