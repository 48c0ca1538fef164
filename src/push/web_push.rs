//! Web Push (RFC 8030): encrypted for the device alone (RFC 8291), signed with the host's own key (RFC 8292).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::{
    aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree},
    digest,
    error::Unspecified,
    hkdf,
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use reqwest::{Client, StatusCode, header};
use serde_json::json;
use url::Url;

use super::{
    content::Content,
    keys::SigningKey,
    senders::{Answer, retry_after},
};
use crate::{
    outbound,
    store::{PushAddress, PushKeys},
};

/// Largest record of the encryption, in bytes: RFC 8030 lets services refuse more than 4,096 of a body.
const RECORD: u32 = 4_096;

/// Life of a VAPID token in seconds; RFC 8292 allows a day.
const TOKEN_LIFE: i64 = 12 * 3_600;

/// Push services whose tokens are kept. Browsers have a handful; what else there is, users name.
const TOKENS: usize = 100;

/// Maximum bytes read of an answer, so that its connection can be used again.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

pub(super) struct WebPush {
    pub(super) client: Client,
    pub(super) key: SigningKey,
    pub(super) subject: String,
    pub(super) allow_private: bool,
    pub(super) tokens: Tokens,
}

/// Tokens in use: a signature takes as long as the encryption of a push.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<String, Token>>);

struct Token {
    /// Seconds since 1970.
    expires: i64,
    signed: String,
}

impl Tokens {
    /// Returns the token for a push service, in use or signed anew by `sign`, which is told when it expires. One is
    /// used for half its life, by the clock that the push service has too: that may jump.
    fn get<E>(
        &self,
        service: &str,
        now: i64,
        sign: impl FnOnce(i64) -> Result<String, E>,
    ) -> Result<String, E> {
        // Each change is whole by itself.
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = tokens.get(service)
            && (TOKEN_LIFE / 2..=TOKEN_LIFE).contains(&(token.expires - now))
        {
            return Ok(token.signed.clone());
        }
        let expires = now + TOKEN_LIFE;
        let signed = sign(expires)?;
        if tokens.len() >= TOKENS {
            tokens.clear();
        }
        tokens.insert(service.to_owned(), Token { expires, signed: signed.clone() });
        Ok(signed)
    }
}

impl WebPush {
    pub(super) async fn send(&self, to: &PushAddress, content: &Content, life: Duration) -> Answer {
        let Ok(endpoint) = to.token.parse::<Url>() else {
            return Answer::Refused("its endpoint is no URL".to_owned());
        };
        // The settings may have changed since it was registered.
        if outbound::check_url(&endpoint, self.allow_private).is_err() {
            return Answer::Refused("its endpoint may not be reached".to_owned());
        }
        let (Some(keys), Ok(body)) = (&to.keys, serde_json::to_vec(content)) else {
            return Answer::Refused("it has no keys".to_owned());
        };
        let Ok(body) = encrypt(keys, &body) else {
            return Answer::Refused("its key is not on the curve".to_owned());
        };
        let service = endpoint.origin().ascii_serialization();
        let token = self.tokens.get(&service, jiff::Timestamp::now().as_second(), |expires| {
            let claims = json!({ "aud": service, "exp": expires, "sub": self.subject });
            self.key.sign(None, &claims)
        });
        let Ok(token) = token else { return Answer::later("no signature") };
        let mut request = self
            .client
            .post(endpoint)
            .header(header::AUTHORIZATION, format!("vapid t={token}, k={}", self.key.public()))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_ENCODING, "aes128gcm")
            .header("ttl", life.as_secs())
            .header("urgency", if content.what.is_urgent() { "high" } else { "normal" });
        if let Some(chat_id) = content.what.chat_id() {
            request = request.header("topic", topic(&to.key, chat_id.as_bytes()));
        }
        let answer = match request.body(body).send().await {
            Ok(answer) => answer,
            Err(error) => return Answer::from(outbound::Failure::from(error)),
        };
        let (status, after) = (answer.status(), retry_after(answer.headers()));
        // Only the status counts.
        outbound::read_body(answer, MAX_ANSWER_BYTES).await;
        match status {
            _ if status.is_success() => Answer::Accepted,
            StatusCode::NOT_FOUND | StatusCode::GONE => Answer::Gone,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Answer::Unauthorized(reason(status))
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Answer::Later { after, reason: reason(status) }
            }
            _ if status.is_server_error() => Answer::Later { after, reason: reason(status) },
            _ => Answer::Refused(reason(status)),
        }
    }
}

fn reason(status: StatusCode) -> String {
    format!("answered {}", status.as_u16())
}

/// Names a chat to the push service, which keeps the latest message of a topic only: up to 32 characters that tell
/// nothing of the chat, and differ between devices.
fn topic(device: &[u8], chat: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(device);
    context.update(chat);
    BASE64_URL_SAFE_NO_PAD.encode(&context.finish().as_ref()[..24])
}

/// Encrypts a message for a subscription, as one record.
fn encrypt(to: &PushKeys, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
    let ours = PrivateKey::generate(&ECDH_P256)?;
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt)?;
    encrypt_with(to, message, &ours, salt)
}

fn encrypt_with(
    to: &PushKeys,
    message: &[u8],
    ours: &PrivateKey,
    salt: [u8; 16],
) -> Result<Vec<u8>, Unspecified> {
    let public = ours.compute_public_key()?;
    let theirs = UnparsedPublicKey::new(&ECDH_P256, &to.p256dh);
    // RFC 8291 §3.4: the shared secret and the subscription's make the key from which the record's are derived.
    let input = agree(ours, theirs, Unspecified, |secret| {
        let info = [b"WebPush: info\0", &*to.p256dh, public.as_ref()].concat();
        derive::<32>(&to.auth, secret, &info)
    })?;
    let key = derive::<16>(&salt, &input, b"Content-Encoding: aes128gcm\0")?;
    let nonce = derive::<12>(&salt, &input, b"Content-Encoding: nonce\0")?;
    // RFC 8188 §2: salt, size of a record, the sender's key; then the record, which ends with the mark of the last.
    let mut body = [&salt[..], &RECORD.to_be_bytes(), &[65], public.as_ref()].concat();
    let mut record = [message, &[2]].concat();
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key)?);
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut record)?;
    body.append(&mut record);
    Ok(body)
}

/// HKDF with SHA-256 (RFC 5869).
fn derive<const N: usize>(salt: &[u8], secret: &[u8], info: &[u8]) -> Result<[u8; N], Unspecified> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut key = [0; N];
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    extracted.expand(&[info], Length(N))?.fill(&mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        BASE64_URL_SAFE_NO_PAD.decode(text).expect("base64url")
    }

    /// The example of RFC 8291 §5.
    #[test]
    fn a_message_is_encrypted_as_the_rfc_has_it() {
        let to = PushKeys {
            p256dh: bytes(
                "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
            ),
            auth: bytes("BTBZMqHH6r4Tts7J_aSIgg"),
        };
        let ours = bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw");
        let ours = PrivateKey::from_private_key(&ECDH_P256, &ours).expect("a key");
        let salt = bytes("DGv6ra1nlYgDCS1FRnbzlw").try_into().expect("16 bytes");
        let body = encrypt_with(&to, b"When I grow up, I want to be a watermelon", &ours, salt);
        assert_eq!(
            BASE64_URL_SAFE_NO_PAD.encode(body.expect("a body")),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz\
             AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        );
    }

    #[test]
    fn a_token_is_used_for_half_its_life_by_a_clock_that_may_jump() {
        let tokens = Tokens::default();
        let get = |service: &str, now| tokens.get(service, now, |at| Ok::<_, ()>(at.to_string()));
        let signed_at = |now: i64| Ok((now + TOKEN_LIFE).to_string());
        assert_eq!(get("a", 100_000), signed_at(100_000));
        assert_eq!(get("b", 100_001), signed_at(100_001), "each service has its own");
        let half = 100_000 + TOKEN_LIFE / 2;
        assert_eq!(get("a", half), signed_at(100_000));
        assert_eq!(get("a", half + 1), signed_at(half + 1), "it is half over");
        assert_eq!(get("a", 100_000), signed_at(100_000), "the clock went back");
        assert_eq!(get("a", 999_999), signed_at(999_999), "the clock jumped");
        for number in 0..2 * TOKENS {
            get(&number.to_string(), 0).expect("signed");
        }
        assert!(tokens.0.lock().expect("no panic").len() <= TOKENS);
    }

    #[test]
    fn a_topic_fits_and_tells_devices_and_chats_apart() {
        assert_eq!(topic(b"a", b"b").len(), 32);
        assert_ne!(topic(b"a", b"b"), topic(b"a", b"c"));
        assert_ne!(topic(b"a", b"b"), topic(b"b", b"b"));
    }
}
