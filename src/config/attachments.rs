//! Settings of attachments.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::Args;
use url::Url;

use super::{ConfigError, Secret};

/// Where the bytes of attachments lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachmentPlace {
    Off,
    /// A folder, which all replicas share.
    Folder(PathBuf),
    /// A bucket of S3 (`s3`), Google (`gs`) or Azure (`az`), with a prefix of the keys.
    Bucket(Url),
}

impl FromStr for AttachmentPlace {
    type Err = &'static str;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        if raw == "off" {
            return Ok(Self::Off);
        }
        let url = Url::parse(raw).map_err(|_| "must be off, file:///path or s3://bucket/prefix")?;
        match url.scheme() {
            "file" => url
                .to_file_path()
                .map(Self::Folder)
                .map_err(|()| "must have an absolute path: file:///path"),
            "s3" | "gs" | "az" if url.has_host() => Ok(Self::Bucket(url)),
            _ => Err("must be off, file:///path or s3://bucket/prefix"),
        }
    }
}

/// The address of a scanner that speaks clamd's protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanAddress {
    pub host: String,
    pub port: u16,
}

impl FromStr for ScanAddress {
    type Err = &'static str;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(raw).map_err(|_| "must be clamd://host:port")?;
        match (url.scheme(), url.host_str(), url.port()) {
            ("clamd", Some(host), Some(port)) => Ok(Self { host: host.to_owned(), port }),
            _ => Err("must be clamd://host:port"),
        }
    }
}

impl fmt::Display for ScanAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The settings of attachments.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Attachments")]
pub struct AttachmentConfig {
    /// Where attachments lie: `off` (there are none), `file:///path` (a folder that all replicas share),
    /// `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    #[arg(long = "attachment-store", env = "BESEDA_ATTACHMENTS", default_value = "off")]
    pub attachments: AttachmentPlace,

    /// Largest attachment, in bytes; a larger one is refused with 413.
    #[arg(long, env = "BESEDA_ATTACHMENT_MAX_BYTES", default_value_t = 104_857_600)]
    pub attachment_max_bytes: u64,

    /// How many bytes a user may announce per day (UTC); beyond it, 403 `quota_exceeded`.
    #[arg(long, env = "BESEDA_ATTACHMENT_DAILY_BYTES", default_value_t = 1_073_741_824)]
    pub attachment_daily_bytes: u64,

    /// Scanner that judges each attachment: `clamd://host:port`. Until it has answered, nobody but the
    /// sender gets the bytes. Its StreamMaxLength must be at least BESEDA_ATTACHMENT_MAX_BYTES.
    #[arg(long, env = "BESEDA_SCAN")]
    pub scan: Option<ScanAddress>,

    /// URL of an S3 service other than Amazon's; with `http://` it is reached without TLS. Clients upload
    /// to it and download from it, so they must reach it under this name too.
    #[arg(long, env = "AWS_ENDPOINT_URL")]
    pub aws_endpoint_url: Option<Url>,

    /// Region of the S3 bucket; without it, `us-east-1`.
    #[arg(long, env = "AWS_REGION")]
    pub aws_region: Option<String>,

    /// Key id for S3. Without it, the other ways of Amazon's own programs apply: web identity, the
    /// container's and the machine's role.
    #[arg(long, env = "AWS_ACCESS_KEY_ID", hide_env_values = true)]
    pub aws_access_key_id: Option<Secret>,

    /// Secret key for S3.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub aws_secret_access_key: Option<Secret>,
}

impl AttachmentConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let bounds = [
            ("BESEDA_ATTACHMENT_MAX_BYTES", self.attachment_max_bytes),
            ("BESEDA_ATTACHMENT_DAILY_BYTES", self.attachment_daily_bytes),
        ];
        // So that sums stay within Postgres's bigint.
        const MOST: u64 = 1 << 50;
        match bounds.into_iter().find(|(_, value)| !(1..=MOST).contains(value)) {
            Some((name, _)) => Err(ConfigError::new(name, format!("must be from 1 to {MOST}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_off_a_folder_or_a_bucket() {
        let place = str::parse::<AttachmentPlace>;
        assert_eq!(place("off"), Ok(AttachmentPlace::Off));
        assert_eq!(place("file:///srv/a%20b"), Ok(AttachmentPlace::Folder("/srv/a b".into())));
        assert!(matches!(place("s3://bucket/chat"), Ok(AttachmentPlace::Bucket(_))));
        for wrong in ["", "on", "/srv", "http://bucket/", "s3:bucket", "file://host"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_scanner_has_a_host_and_a_port() {
        let scanner = "clamd://scan.example:3310".parse::<ScanAddress>().expect("an address");
        assert_eq!(scanner.to_string(), "scan.example:3310");
        assert!("clamd://scan.example".parse::<ScanAddress>().is_err());
        assert!("tcp://scan.example:1".parse::<ScanAddress>().is_err());
    }
}
