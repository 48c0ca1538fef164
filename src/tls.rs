//! TLS to Postgres, Redis and the issuers of keys. It always verifies the certificate: encryption to an
//! unknown server protects nothing.

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

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{}: {reason}", path.display())]
    Authorities { path: PathBuf, reason: String },
    #[error(transparent)]
    Library(#[from] rustls::Error),
}

/// Builds a configuration that verifies certificates and their host names. It trusts only the
/// authorities in the PEM file `ca`, or without it those of the system (`SSL_CERT_FILE` and
/// `SSL_CERT_DIR` override them).
///
/// # Errors
/// The file can't be read, or contains no certificate or a broken one.
pub fn client_config(ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => add_authorities(&mut roots, path)
            .map_err(|reason| TlsError::Authorities { path: path.to_owned(), reason })?,
        // One broken certificate of the system must not disable all others.
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
    if roots.is_empty() { Err("contains no certificate".to_owned()) } else { Ok(()) }
}
