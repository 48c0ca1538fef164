//! Key pairs of host applications.

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::Value;

/// A host application's private key, and the public one as PEM.
pub(crate) struct KeyOfHost {
    pub(crate) algorithm: Algorithm,
    pub(crate) private: EncodingKey,
    /// The same as PEM.
    pub(crate) pem: String,
    pub(crate) public: String,
}

impl KeyOfHost {
    /// Signs a token whose header names its key.
    pub(crate) fn sign(&self, kid: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.private).expect("claims that can be signed")
    }

    /// Returns the public key as a member of a JWK set.
    pub(crate) fn jwk(&self, kid: Option<&str>) -> Value {
        let jwk = Jwk::from_encoding_key(&self.private, self.algorithm).expect("a public key");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        if let Some(kid) = kid {
            jwk["kid"] = kid.into();
        }
        jwk
    }
}

fn pem(kind: &str, der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
}

fn public_pem(key: &impl AsDer<PublicKeyX509Der<'static>>) -> String {
    pem("PUBLIC KEY", AsDer::<PublicKeyX509Der>::as_der(key).expect("a public key").as_ref())
}

fn private_pem(der: impl AsRef<[u8]>) -> String {
    pem("PRIVATE KEY", der.as_ref())
}

pub(crate) fn rs256() -> KeyOfHost {
    let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
    let der: Pkcs8V1Der = key.as_der().expect("a private key");
    let pem = private_pem(der.as_ref());
    KeyOfHost {
        algorithm: Algorithm::RS256,
        private: EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a key"),
        pem,
        public: public_pem(key.public_key()),
    }
}

pub(crate) fn es256() -> KeyOfHost {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let pem = private_pem(key.to_pkcs8v1().expect("a private key"));
    KeyOfHost {
        algorithm: Algorithm::ES256,
        private: EncodingKey::from_ec_pem(pem.as_bytes()).expect("a key"),
        pem,
        public: public_pem(key.public_key()),
    }
}

pub(crate) fn eddsa() -> KeyOfHost {
    let key = Ed25519KeyPair::generate().expect("a key");
    let pem = private_pem(key.to_pkcs8v1().expect("a private key"));
    KeyOfHost {
        algorithm: Algorithm::EdDSA,
        private: EncodingKey::from_ed_pem(pem.as_bytes()).expect("a key"),
        pem,
        public: public_pem(key.public_key()),
    }
}
