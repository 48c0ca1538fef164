//! Tokens for development, as the host application would sign them.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::DevError;
use crate::{config::Secret, model::UserId};

/// The secret's file in the folder of `beseda dev`.
const SECRET_FILE: &str = "jwt-secret";

/// Length of a generated secret, in bytes: 1.5 times the minimum of HS256.
const SECRET_BYTES: usize = 48;

/// The file of the key of Web Push, which browsers bind their subscriptions to.
const VAPID_FILE: &str = "vapid-key";

/// Length of a key of P-256, in bytes. All but one of 2³² random numbers are keys.
const VAPID_BYTES: usize = 32;

/// The claims of a token; those that are `None` are left out.
#[derive(Debug, Clone, Serialize)]
pub struct Claims {
    /// The user's id.
    pub sub: String,
    /// Seconds since 1970, as `exp`.
    pub iat: u64,
    pub exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Scopes, separated by spaces; `chat:admin` is for the host application's server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
}

impl Claims {
    /// Makes claims for `user`, valid from now on for `ttl`.
    pub fn new(user: &str, ttl: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            sub: user.to_owned(),
            iat: now.as_secs(),
            exp: now.saturating_add(ttl).as_secs(),
            name: None,
            scope: None,
            iss: None,
            aud: None,
        }
    }
}

/// Signs with HS256, by the first secret if there are two.
pub fn sign(secret: &Secret, claims: &Claims) -> Result<String, DevError> {
    let first = secret.lines().next().unwrap_or_default();
    let key = EncodingKey::from_secret(first.as_bytes());
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key)?)
}

/// Options of `beseda token`.
#[derive(Debug, Clone, clap::Args)]
pub struct TokenOptions {
    /// Id of the token's user.
    #[arg(long)]
    pub user: String,

    /// Name that other users see.
    #[arg(long)]
    pub name: Option<String>,

    /// Life of the token.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    pub ttl: Duration,

    /// Scopes, separated by spaces; `chat:admin` is for the host application's server.
    #[arg(long)]
    pub scope: Option<String>,

    #[command(flatten)]
    pub signing: Signing,
}

/// Options that choose the secret and the issuer of a token.
#[derive(Debug, Clone, clap::Args)]
pub struct Signing {
    /// Sign with the secret that `beseda dev` made in this folder. By default, sign with
    /// BESEDA_JWT_HS256_SECRET, or else with the secret in ./data.
    #[arg(long, env = "BESEDA_DEV_DATA")]
    pub data: Option<PathBuf>,

    /// The secret of HS256 tokens.
    #[arg(long, env = "BESEDA_JWT_HS256_SECRET", hide_env_values = true, hide = true)]
    pub jwt_hs256_secret: Option<Secret>,

    /// Claim `iss`, if the service requires one.
    #[arg(long, env = "BESEDA_JWT_ISSUER")]
    pub jwt_issuer: Option<String>,

    /// Claim `aud`, if the service requires one.
    #[arg(long, env = "BESEDA_JWT_AUDIENCE")]
    pub jwt_audience: Option<String>,
}

/// Signs the token that `options` describe.
pub fn token(options: TokenOptions) -> Result<String, DevError> {
    if UserId::parse(&options.user).is_none() {
        return Err(DevError::UserId(options.user));
    }
    let signing = options.signing;
    let secret = match (signing.data, signing.jwt_hs256_secret) {
        (Some(data), _) => read_secret(&data)?,
        (None, Some(secret)) => secret,
        (None, None) => {
            let data = Path::new(super::run::DEFAULT_DATA);
            if !data.join(SECRET_FILE).exists() {
                return Err(DevError::NoSecret);
            }
            read_secret(data)?
        }
    };
    let claims = Claims {
        name: options.name,
        scope: options.scope,
        iss: signing.jwt_issuer,
        aud: signing.jwt_audience,
        ..Claims::new(&options.user, options.ttl)
    };
    sign(&secret, &claims)
}

fn read_secret(data: &Path) -> Result<Secret, DevError> {
    read(&data.join(SECRET_FILE))
}

fn read(path: &Path) -> Result<Secret, DevError> {
    fs::read_to_string(path)
        .map(|text| Secret::from(text.trim().to_owned()))
        .map_err(DevError::io(format!("cannot read {}", path.display())))
}

/// Reads the secret of the folder `data`, and generates it at the first start, so that tokens stay valid
/// across restarts.
pub(super) fn secret_of(data: &Path) -> Result<Secret, DevError> {
    kept(&data.join(SECRET_FILE), &rand::random::<[u8; SECRET_BYTES]>())
}

/// Reads the key of Web Push in the folder `data`, and generates it at the first start.
pub(super) fn vapid_key_of(data: &Path) -> Result<Secret, DevError> {
    kept(&data.join(VAPID_FILE), &rand::random::<[u8; VAPID_BYTES]>())
}

/// Reads a secret, and stores this one first if there is none.
fn kept(path: &Path, fresh: &[u8]) -> Result<Secret, DevError> {
    if !path.exists() {
        // Renamed into place, so that an interrupted start leaves no partial secret.
        let draft = path.with_extension("new");
        write_private(&draft, &BASE64_URL_SAFE_NO_PAD.encode(fresh))?;
        fs::rename(&draft, path)
            .map_err(DevError::io(format!("cannot write {}", path.display())))?;
    }
    read(path)
}

/// Writes a file that only its owner may read.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), DevError> {
    // Removed first: an existing file would keep its mode.
    let _ = fs::remove_file(path);
    File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(DevError::io(format!("cannot write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_secret_is_private_and_stays_the_same() {
        let data = tempfile::tempdir().unwrap();
        let secret = secret_of(data.path()).unwrap();
        let mode = fs::metadata(data.path().join(SECRET_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(secret.expose().len() >= 32);
        assert!(secret == secret_of(data.path()).unwrap());
        let key = vapid_key_of(data.path()).unwrap();
        assert!(key != secret && key == vapid_key_of(data.path()).unwrap());
    }
}
