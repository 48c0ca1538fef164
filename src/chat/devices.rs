//! Devices of users, which are told of messages by push.

use aws_lc_rs::{
    agreement::{ECDH_P256, ParsedPublicKey, UnparsedPublicKey},
    digest,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use beseda_protocol::{
    bounds::{MAX_DEVICES, MAX_PUSH_TOKEN_CHARS},
    rest::{NewDevice, PushInfo, Subscription},
};
use url::Url;

use super::Chats;
use crate::{
    auth::Identity,
    error::Error,
    model::{Device, PushPlatform, UserId},
    outbound::{self, UrlFault},
    store::{DeviceDraft, PushAddress, PushKeys, Registered},
};

impl Chats {
    /// What clients need to know before they register a device.
    pub fn push_info(&self) -> &PushInfo {
        &self.push
    }

    /// Registers a device, or registers it anew. A token or subscription that another device or another
    /// user has changes hands.
    pub async fn put_device(
        &self,
        identity: &Identity,
        device_id: &str,
        new: &NewDevice,
    ) -> Result<Device, Error> {
        let (user, platform) = (identity.user_id(), new.platform);
        if !self.push.platforms.contains(&platform) {
            return Err(Error::field("platform", "is not set up here: see GET /push/"));
        }
        let (token, keys) = match (platform, &new.token, &new.subscription) {
            (PushPlatform::Webpush, None, Some(subscription)) => {
                let (endpoint, keys) = self.checked_subscription(subscription)?;
                (endpoint, Some(keys))
            }
            (PushPlatform::Webpush, ..) => {
                return Err(Error::field(
                    "subscription",
                    "is required for webpush, without a token",
                ));
            }
            (_, Some(token), None) => (checked_token(platform, token)?, None),
            _ => return Err(Error::field("token", "is required, without a subscription")),
        };
        let named = [platform.as_str().as_bytes(), b"\0", token.as_bytes()].concat();
        let key = digest::digest(&digest::SHA256, &named).as_ref().to_vec();
        let draft = DeviceDraft {
            device_id: device_id.to_owned(),
            platform,
            address: PushAddress { token, keys, key },
            locale: new.locale.clone(),
            preview: new.preview.unwrap_or(false),
        };
        match self.store.put_device(user, identity.issued_at, &draft, MAX_DEVICES).await? {
            Registered::Done => {}
            Registered::Erased => return Err(Error::TokenInvalid("its user was erased")),
            Registered::Revoked => return Err(Error::TokenInvalid("it was revoked")),
        }
        let devices = self.store.list_devices(user).await?;
        let device = devices.into_iter().find(|device| device.device_id == device_id);
        // Gone again already: another call has removed it.
        device.ok_or(Error::Unavailable(None))
    }

    /// Forgets a device. Idempotent.
    pub async fn drop_device(&self, user: &UserId, device_id: &str) -> Result<(), Error> {
        Ok(self.store.drop_device(user, device_id).await?)
    }

    /// Lists a user's devices, latest registered first.
    pub async fn list_devices(&self, user: &UserId) -> Result<Vec<Device>, Error> {
        Ok(self.store.list_devices(user).await?)
    }

    /// Checks a subscription, and reads its endpoint, in the form that all its spellings have, and its keys.
    fn checked_subscription(
        &self,
        subscription: &Subscription,
    ) -> Result<(String, PushKeys), Error> {
        let refuse =
            |field: &str, reason: &str| Error::field(format!("subscription.{field}"), reason);
        let endpoint = subscription.endpoint.parse::<Url>();
        let mut endpoint = endpoint.map_err(|_| refuse("endpoint", "must be a URL"))?;
        endpoint.set_fragment(None);
        if endpoint.as_str().len() > MAX_PUSH_TOKEN_CHARS {
            return Err(refuse("endpoint", "must have 4096 characters at most"));
        }
        outbound::check_url(&endpoint, self.private_push).map_err(|fault| match fault {
            UrlFault::Scheme => refuse("endpoint", "must be https://"),
            UrlFault::Credentials => refuse("endpoint", "must have no user and no password"),
            UrlFault::Private => refuse("endpoint", "must not be a private address"),
        })?;
        // Browsers leave the padding out, some libraries do not.
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let p256dh = decode(&subscription.keys.p256dh)
            .filter(|key| key.len() == 65 && is_point(key))
            .ok_or_else(|| refuse("keys.p256dh", "must be a point of P-256 in base64url"))?;
        let auth = decode(&subscription.keys.auth).filter(|auth| auth.len() == 16);
        let auth = auth.ok_or_else(|| refuse("keys.auth", "must be 16 bytes in base64url"))?;
        Ok((endpoint.into(), PushKeys { p256dh, auth }))
    }
}

/// Checks a token's form. Of APNs it becomes a part of a path.
fn checked_token(platform: PushPlatform, token: &str) -> Result<String, Error> {
    let fits = (1..=MAX_PUSH_TOKEN_CHARS).contains(&token.len());
    match platform {
        PushPlatform::Apns => {
            if !fits || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(Error::field("token", "must be hexadecimal digits"));
            }
            Ok(token.to_ascii_lowercase())
        }
        _ if fits && token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(token.to_owned()),
        _ => Err(Error::field("token", "must have 1 to 4096 characters of ASCII, no spaces")),
    }
}

fn is_point(key: &[u8]) -> bool {
    ParsedPublicKey::try_from(&UnparsedPublicKey::new(&ECDH_P256, key)).is_ok()
}
