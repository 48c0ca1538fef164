//! TLS to others: Postgres, Redis, and issuers that publish their keys. It always verifies: who is not
//! sure whom they talk to gains nothing by encrypting it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {reason}", path.display())]
    Authorities { path: PathBuf, reason: String },
    #[error(transparent)]
    Library(#[from] rustls::Error),
}

/// Verifies certificates, and that they are of the host asked for: with the authorities of the PEM file
/// `ca` and no others; without it, with those that the system trusts (`SSL_CERT_FILE` and
/// `SSL_CERT_DIR` name others).
///
/// # Errors
/// The file can't be read, has no certificate in it, or a broken one.
pub fn client_config(ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => add_authorities(&mut roots, path)
            .map_err(|reason| TlsError::Authorities { path: path.to_owned(), reason })?,
        // A broken certificate among the system's is no reason to trust none of them.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let pem = std::fs::read(path).map_err(|error: io::Error| error.to_string())?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("no certificate: {error}"))?;
    }
    if roots.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(()) }
}
