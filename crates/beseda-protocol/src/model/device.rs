//! Devices that are told of messages by push.

use serde::{Deserialize, Serialize};

use super::Time;

/// Who carries a push to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PushPlatform {
    /// Web Push (RFC 8030): browsers, and UnifiedPush.
    Webpush,
    /// Firebase Cloud Messaging.
    Fcm,
    /// Apple Push Notification service.
    Apns,
}

impl PushPlatform {
    pub const ALL: [Self; 3] = [Self::Webpush, Self::Fcm, Self::Apns];

    /// Returns the word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Webpush => "webpush",
            Self::Fcm => "fcm",
            Self::Apns => "apns",
        }
    }
}

/// A registered device of the caller's. Its token or subscription is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Device {
    pub device_id: String,
    pub platform: PushPlatform,
    pub locale: Option<String>,
    /// Messages' texts are sent to it.
    pub preview: bool,
    pub created_at: Time,
    /// When it was registered last.
    pub updated_at: Time,
}
