//! Settings of tokens: which issuers are accepted, and by which keys.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use url::Url;

use super::{ConfigError, Secret};

/// Shortest secret for HS256: as long as its hash (RFC 7518 §3.2).
const MIN_HS256_SECRET_BYTES: usize = 32;

/// Maximum number of keys of one issuer in a setting: the old one and the new one. More indicate a mistake,
/// such as a PEM used as a secret, and each one is tried on every foreign token.
pub const MAX_FIXED_KEYS: usize = 2;

/// The settings of tokens.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tokens")]
pub struct AuthConfig {
    /// Secret of HS256 tokens, at least 32 bytes. During a rotation it holds two secrets, one per line,
    /// and tokens of both are accepted. This, BESEDA_JWT_PUBLIC_KEY, BESEDA_JWT_JWKS_URL or
    /// BESEDA_JWT_ISSUERS is required.
    #[arg(long, env = "BESEDA_JWT_HS256_SECRET", hide_env_values = true)]
    pub jwt_hs256_secret: Option<Secret>,

    /// Public key of RS256, ES256 or EdDSA tokens: PEM, or the path of a PEM file. The kind of the key
    /// fixes the algorithm. During a rotation it holds two keys, one after the other.
    #[arg(long, env = "BESEDA_JWT_PUBLIC_KEY", hide_env_values = true)]
    pub jwt_public_key: Option<String>,

    /// URL of the JWK set that the issuer publishes: `https://`, or `http://` on the same machine. It
    /// is read again every ten minutes, and when no key fits a token.
    #[arg(long, env = "BESEDA_JWT_JWKS_URL")]
    pub jwt_jwks_url: Option<Url>,

    /// Issuers beside or instead of the one above: `ISSUER=KEYS`, comma-separated. KEYS is the URL of a
    /// JWK set, or the path of a PEM file with a public key. The token's `iss` chooses among them.
    #[arg(long, env = "BESEDA_JWT_ISSUERS", value_delimiter = ',')]
    pub jwt_issuers: Vec<IssuerConfig>,

    /// Required value of `iss`, where set.
    #[arg(long, env = "BESEDA_JWT_ISSUER")]
    pub jwt_issuer: Option<String>,

    /// Value that `aud` must contain, where set.
    #[arg(long, env = "BESEDA_JWT_AUDIENCE")]
    pub jwt_audience: Option<String>,

    /// Tolerated difference between the clocks of the issuer and this machine; 30s at most.
    #[arg(long, env = "BESEDA_JWT_LEEWAY", default_value = "10s", value_parser = humantime::parse_duration)]
    pub jwt_leeway: Duration,
}

/// One of several issuers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// Required value of `iss`.
    pub name: String,
    pub keys: KeySource,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A JWK set.
    Url(Url),
    /// A public key in PEM.
    File(PathBuf),
}

impl std::str::FromStr for IssuerConfig {
    type Err = &'static str;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        // Lists are written with blanks after their commas too.
        match value.trim().split_once('=') {
            Some((name, keys)) if !name.is_empty() && !keys.is_empty() => Ok(Self {
                name: name.to_owned(),
                keys: match Url::parse(keys) {
                    Ok(url) if url.has_host() => KeySource::Url(url),
                    _ => KeySource::File(PathBuf::from(keys)),
                },
            }),
            _ => Err("must be ISSUER=KEYS"),
        }
    }
}

impl IssuerConfig {
    /// Reads the PEM of a public key; empty for a JWK set.
    pub fn pem(&self) -> Result<Vec<u8>, ConfigError> {
        match &self.keys {
            KeySource::File(path) => read_file("BESEDA_JWT_ISSUERS", path),
            KeySource::Url(_) => Ok(Vec::new()),
        }
    }
}

impl AuthConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        self.hs256_secrets()?;
        let own = [
            ("BESEDA_JWT_HS256_SECRET", self.jwt_hs256_secret.is_some()),
            ("BESEDA_JWT_PUBLIC_KEY", self.jwt_public_key.is_some()),
            ("BESEDA_JWT_JWKS_URL", self.jwt_jwks_url.is_some()),
        ];
        let mut given = own.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
        match (given.next(), given.next()) {
            (None, _) if self.jwt_issuers.is_empty() => {
                return Err(ConfigError::new(
                    "BESEDA_JWT_HS256_SECRET",
                    "set this, BESEDA_JWT_PUBLIC_KEY or BESEDA_JWT_JWKS_URL: without a key no token \
                     can be checked",
                ));
            }
            (Some(one), Some(other)) => {
                return Err(ConfigError::new(
                    other,
                    format!("set this or {one}, not both: an issuer has one source of keys"),
                ));
            }
            (Some(_), None) if !self.jwt_issuers.is_empty() && self.jwt_issuer.is_none() => {
                return Err(ConfigError::new(
                    "BESEDA_JWT_ISSUER",
                    "must be set beside BESEDA_JWT_ISSUERS: `iss` tells whose key a token needs",
                ));
            }
            _ => {}
        }
        self.validate_issuers()?;
        if self.jwt_leeway > Duration::from_secs(30) {
            return Err(ConfigError::new("BESEDA_JWT_LEEWAY", "must be 30s at most"));
        }
        Ok(())
    }

    fn validate_issuers(&self) -> Result<(), ConfigError> {
        let own = self.jwt_jwks_url.iter().map(|url| ("BESEDA_JWT_JWKS_URL", url));
        let others = self.jwt_issuers.iter().filter_map(|issuer| match &issuer.keys {
            KeySource::Url(url) => Some(("BESEDA_JWT_ISSUERS", url)),
            KeySource::File(_) => None,
        });
        for (name, url) in own.chain(others) {
            let local = match url.host() {
                Some(url::Host::Domain(host)) => host == "localhost",
                Some(url::Host::Ipv4(address)) => address.is_loopback(),
                Some(url::Host::Ipv6(address)) => address.to_canonical().is_loopback(),
                None => false,
            };
            if url.scheme() != "https" && !(url.scheme() == "http" && local) {
                return Err(ConfigError::new(
                    name,
                    "must be https://: a forged key in transit would let its owner be any user",
                ));
            }
        }
        let mut names: Vec<_> =
            self.jwt_issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        names.extend(self.jwt_issuer.as_deref().filter(|_| !names.is_empty()));
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                Err(ConfigError::new("BESEDA_JWT_ISSUERS", format!("{} is there twice", pair[0])))
            }
            None => Ok(()),
        }
    }

    /// Returns the secrets of HS256 tokens; none if another kind of key is set.
    pub fn hs256_secrets(&self) -> Result<Vec<&str>, ConfigError> {
        let Some(secret) = &self.jwt_hs256_secret else { return Ok(Vec::new()) };
        let refuse = |reason| Err(ConfigError::new("BESEDA_JWT_HS256_SECRET", reason));
        let secrets: Vec<_> = secret.lines().collect();
        if secrets.len() > MAX_FIXED_KEYS {
            return refuse("must be one secret, or two, a line each, while one replaces the other");
        }
        // An empty setting has no line at all.
        if secrets.is_empty() || secrets.iter().any(|one| one.len() < MIN_HS256_SECRET_BYTES) {
            return refuse("must be at least 32 bytes a line; `openssl rand -base64 48` makes one");
        }
        Ok(secrets)
    }

    /// Returns the public key's PEM, read from its file if a path is set.
    pub fn public_key_pem(&self) -> Result<Option<Vec<u8>>, ConfigError> {
        let Some(value) = &self.jwt_public_key else { return Ok(None) };
        if value.trim_start().starts_with("-----BEGIN") {
            return Ok(Some(value.clone().into_bytes()));
        }
        read_file("BESEDA_JWT_PUBLIC_KEY", &PathBuf::from(value)).map(Some)
    }
}

fn read_file(name: &'static str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path)
        .map_err(|error| ConfigError::new(name, format!("{}: {error}", path.display())))
}
