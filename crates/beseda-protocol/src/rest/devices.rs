//! Requests and answers about devices that are told of messages by push.

use serde::{Deserialize, Serialize};

use crate::model::{Device, PushPlatform};

/// A device to register: with a `token`, or for `webpush` with a `subscription`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewDevice {
    pub platform: PushPlatform,
    /// What the platform calls the device: of `fcm` its registration token, of `apns` its device token in
    /// hexadecimal digits.
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 4096))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Of `webpush`: what the browser's `PushSubscription.toJSON()` gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription: Option<Subscription>,
    /// The language that the device shows, as BCP 47 writes it.
    #[cfg_attr(feature = "openapi", schema(max_length = 35))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Send the messages' texts to it; without, only who wrote, and where. `false` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<bool>,
}

/// A subscription of Web Push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Subscription {
    /// An `https://` URL of the push service.
    #[cfg_attr(feature = "openapi", schema(max_length = 4096))]
    pub endpoint: String,
    pub keys: SubscriptionKeys,
}

/// The keys of a subscription, in base64url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubscriptionKeys {
    /// The device's public key: an uncompressed point of P-256.
    pub p256dh: String,
    /// 16 bytes that only the device and this service know.
    pub auth: String,
}

/// The caller's devices.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceList {
    /// Latest registered first.
    pub results: Vec<Device>,
}

/// What a client needs to know before it registers a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PushInfo {
    /// The platforms that are set up here.
    pub platforms: Vec<PushPlatform>,
    /// The `applicationServerKey` for a browser's subscription, in base64url; null without `webpush`.
    pub vapid_public_key: Option<String>,
}
