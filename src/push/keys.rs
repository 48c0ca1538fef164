//! Private keys of P-256, and what they sign: JSON Web Tokens with ES256.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde::Serialize;
use serde_json::json;

/// A private key of P-256.
#[derive(Debug)]
pub(super) struct SigningKey(EcdsaKeyPair);

#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error("must be a private key of P-256 in PEM")]
    Form,
    #[error("signing failed")]
    Signing,
}

impl SigningKey {
    /// Reads a key in PEM, as openssl and Apple write them.
    pub(super) fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Form)?;
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_der())
            .map(Self)
            .map_err(|_| KeyError::Form)
    }

    /// Reads a key of 32 bytes in base64url, as programs for VAPID write them.
    pub(super) fn from_scalar(text: &str) -> Result<Self, KeyError> {
        use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
        let text = text.trim().trim_end_matches('=');
        let scalar = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Form)?;
        let key = PrivateKey::from_private_key(&ECDH_P256, &scalar).map_err(|_| KeyError::Form)?;
        let public = key.compute_public_key().map_err(|_| KeyError::Form)?;
        EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &scalar,
            public.as_ref(),
        )
        .map(Self)
        .map_err(|_| KeyError::Form)
    }

    /// Returns the public key, an uncompressed point, in base64url.
    pub(super) fn public(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0.public_key())
    }

    /// Signs claims; some 30 µs.
    pub(super) fn sign(
        &self,
        key_id: Option<&str>,
        claims: &impl Serialize,
    ) -> Result<String, KeyError> {
        let mut header = json!({ "typ": "JWT", "alg": "ES256" });
        if let Some(key_id) = key_id {
            header["kid"] = key_id.into();
        }
        let part = |json: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(json);
        let claims = serde_json::to_vec(claims).map_err(|_| KeyError::Signing)?;
        let signed = format!("{}.{}", part(header.to_string().as_bytes()), part(&claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| KeyError::Signing)?;
        Ok(format!("{signed}.{}", part(signature.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pair of the example in RFC 8292 §2.4 as both forms; signatures are checked by jsonwebtoken.
    #[test]
    fn a_key_is_read_in_both_forms_and_signs() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let document = pair.to_pkcs8v1().expect("PKCS #8");
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            base64::prelude::BASE64_STANDARD.encode(document.as_ref())
        );
        let key = SigningKey::from_pem(&pem).expect("a key");
        let scalar = aws_lc_rs::encoding::AsBigEndian::<
            aws_lc_rs::encoding::EcPrivateKeyBin<'_>,
        >::as_be_bytes(&pair.private_key())
        .expect("a scalar");
        let same = SigningKey::from_scalar(&BASE64_URL_SAFE_NO_PAD.encode(scalar.as_ref()));
        assert_eq!(same.expect("a key").public(), key.public());

        let token = key.sign(Some("K1"), &json!({ "sub": "a", "exp": 4_000_000_000_u64 }));
        let token = token.expect("a token");
        let point = BASE64_URL_SAFE_NO_PAD.decode(key.public()).expect("base64");
        let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let public = jsonwebtoken::DecodingKey::from_ec_components(
            &part(&point[1..33]),
            &part(&point[33..]),
        );
        let rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
        let read =
            jsonwebtoken::decode::<serde_json::Value>(token, &public.expect("a key"), &rules);
        let read = read.expect("a valid token");
        assert_eq!((read.header.kid.as_deref(), &read.claims["sub"]), (Some("K1"), &json!("a")));
        for wrong in ["", "not base64!", "AAAA"] {
            assert!(SigningKey::from_scalar(wrong).is_err(), "{wrong}");
            assert!(SigningKey::from_pem(wrong).is_err(), "{wrong}");
        }
    }
}
