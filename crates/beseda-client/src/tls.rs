//! TLS that trusts what this machine trusts.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use crate::Error;

/// The authorities of this machine. A machine without any can still speak plain HTTP.
pub(crate) fn native() -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::network)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
