//! Devices that users have registered for push.

use tokio_postgres::types::Type;

use super::{Store, StoreError, row::Row, rows::time};
use crate::model::{Device, PushPlatform, Time, UserId};

/// A device to register.
#[derive(Debug, Clone)]
pub struct DeviceDraft {
    pub device_id: String,
    pub platform: PushPlatform,
    pub address: PushAddress,
    pub locale: Option<String>,
    pub preview: bool,
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    Done,
    /// The user was erased.
    Erased,
    /// The caller's token was revoked.
    Revoked,
}

/// Where a provider finds a device.
#[derive(Clone, PartialEq, Eq)]
pub struct PushAddress {
    /// The provider's name of the device; of Web Push its endpoint.
    pub token: String,
    /// Of Web Push.
    pub keys: Option<PushKeys>,
    /// SHA-256 of platform and token.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for PushAddress {
    /// Whoever has it can write to the device, so no log shows it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The keys of a subscription.
#[derive(Clone, PartialEq, Eq)]
pub struct PushKeys {
    /// The device's public key: an uncompressed point of P-256.
    pub p256dh: Vec<u8>,
    /// The subscription's secret.
    pub auth: Vec<u8>,
}

impl Store {
    /// Registers a device, or registers it anew. Of more than `most` devices those registered longest ago
    /// go. `issued_at`: when the caller's token was issued.
    pub async fn put_device(
        &self,
        user: &UserId,
        issued_at: Option<Time>,
        draft: &DeviceDraft,
        most: i64,
    ) -> Result<Registered, StoreError> {
        let DeviceDraft { device_id, platform, address, locale, preview } = draft;
        let keys = address.keys.as_ref();
        let row = self
            .query_one(
                PUT_DEVICE,
                &[
                    (&user.as_str(), Type::TEXT),
                    (&issued_at.map(|time| time.0), Type::TIMESTAMPTZ),
                    (device_id, Type::TEXT),
                    (&platform.as_str(), Type::TEXT),
                    (&address.token, Type::TEXT),
                    (&keys.map(|keys| &*keys.p256dh), Type::BYTEA),
                    (&keys.map(|keys| &*keys.auth), Type::BYTEA),
                    (&address.key, Type::BYTEA),
                    (locale, Type::TEXT),
                    (preview, Type::BOOL),
                    (&most, Type::INT8),
                ],
            )
            .await?;
        Ok(match row.get("outcome") {
            "ok" => Registered::Done,
            "revoked" => Registered::Revoked,
            _ => Registered::Erased,
        })
    }

    /// Forgets a device, if there is such a one.
    pub async fn drop_device(&self, user: &UserId, device_id: &str) -> Result<(), StoreError> {
        let params = [(&user.as_str() as _, Type::TEXT), (&device_id as _, Type::TEXT)];
        self.query(DROP_DEVICE, &params).await?;
        Ok(())
    }

    /// Lists a user's devices, latest registered first.
    pub async fn list_devices(&self, user: &UserId) -> Result<Vec<Device>, StoreError> {
        let rows = self.query(LIST_DEVICES, &[(&user.as_str(), Type::TEXT)]).await?;
        let device = |row: &Row| Device {
            device_id: row.get("device_id"),
            platform: platform(row.get("platform")),
            locale: row.get("locale"),
            preview: row.get("preview"),
            created_at: time(row, "created_at"),
            updated_at: time(row, "updated_at"),
        };
        Ok(rows.iter().map(device).collect())
    }
}

/// Reads the columns `token`, `p256dh`, `auth` and `token_key` of a device.
pub(super) fn address(row: &Row) -> PushAddress {
    let keys = row.get::<Option<Vec<u8>>>("p256dh").zip(row.get::<Option<Vec<u8>>>("auth"));
    PushAddress {
        token: row.get("token"),
        keys: keys.map(|(p256dh, auth)| PushKeys { p256dh, auth }),
        key: row.get("token_key"),
    }
}

/// Reads a value of the type `push_platform`.
pub(super) fn platform(raw: &str) -> PushPlatform {
    match raw {
        "fcm" => PushPlatform::Fcm,
        "apns" => PushPlatform::Apns,
        _ => PushPlatform::Webpush,
    }
}

const PUT_DEVICE: &str = "\
-- store.put_device
SELECT put_device($1, $2, $3, $4::text::push_platform, $5, $6, $7, $8, $9, $10, $11) AS outcome";

const DROP_DEVICE: &str = "\
-- store.drop_device
SELECT drop_device($1, $2)";

const LIST_DEVICES: &str = "\
-- store.list_devices
SELECT device_id, platform::text, locale, preview, created_at, updated_at
  FROM (SELECT * FROM devices d WHERE d.user_id = $1 ORDER BY d.user_id, d.device_id LIMIT 1000) d
 ORDER BY updated_at DESC, device_id";
