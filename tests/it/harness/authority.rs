//! A certificate authority for the servers of tests.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use tempfile::NamedTempFile;

/// A certificate authority, whose file is removed on drop.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

/// A server's certificate and private key, as PEM.
pub(crate) struct Certificate {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        // Another one's name is another one.
        let name = format!("authority {:016x}", rand::random::<u64>());
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("it can sign");
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), issuer.pem()).expect("it can be written");
        Self { issuer, file }
    }

    /// Returns the path of the authority's own certificate, for a client's configuration.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Issues a certificate for a server's name or address.
    pub(crate) fn sign(&self, host: &str) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([host.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("it can sign");
        Certificate { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}
