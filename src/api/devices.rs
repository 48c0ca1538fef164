//! Devices: `/api/v1/devices/`, `/api/v1/push/`.

use axum::{Json, extract::State, http::StatusCode};
use beseda_protocol::{
    bounds::MAX_LOCALE_CHARS,
    rest::{DeviceList, NewDevice, PushInfo, Subscription, SubscriptionKeys},
};

use super::extract::{AuthUser, DevicePath, JsonBody};
use crate::{context::Context, error::Error, input::Fields, model::Device};

/// Reads which platforms are set up for push, and the key for a browser's subscription.
#[utoipa::path(get, path = "/push/", tag = "devices", responses(
    (status = 200, description = "What can be registered here", body = PushInfo),
))]
pub(super) async fn get_push(State(context): State<Context>, _: AuthUser) -> Json<PushInfo> {
    Json(context.chats.push_info().clone())
}

/// Lists the caller's devices.
#[utoipa::path(get, path = "/devices/", tag = "devices", responses(
    (status = 200, description = "All of them, 20 at most", body = DeviceList),
))]
pub(super) async fn list_devices(
    State(context): State<Context>,
    user: AuthUser,
) -> Result<Json<DeviceList>, Error> {
    Ok(Json(DeviceList { results: context.chats.list_devices(user.id()).await? }))
}

/// Registers a device of the caller's, or registers it anew: at each start of the app. Of more than 20 the
/// one registered longest ago goes. A token or subscription that another user has registered is the
/// caller's from now on.
#[utoipa::path(put, path = "/devices/{device_id}/", tag = "devices", params(
    ("device_id" = String, Path, description = "The client's own: 1 to 64 letters, digits, `-`, `_`, `.`"),
), request_body = NewDevice, responses(
    (status = 200, description = "Registered", body = Device),
))]
pub(super) async fn put_device(
    State(context): State<Context>,
    user: AuthUser,
    DevicePath(device_id): DevicePath,
    JsonBody(mut fields): JsonBody,
) -> Result<Json<Device>, Error> {
    const WORDS: &str = "webpush, fcm or apns";
    if !fields.has("platform") {
        fields.refuse("platform", format!("must be {WORDS}"));
    }
    let platform = fields.optional_word("platform", WORDS);
    let any = |_: &str| Ok(());
    let token = fields.optional_string("token", any);
    let subscription = fields.optional_fields("subscription").and_then(|mut inner| {
        let endpoint = inner.required_string("endpoint", any);
        let keys = inner.optional_fields("keys").unwrap_or_default();
        let keys = read_keys(&mut inner, keys);
        fields.nest("subscription", inner);
        Some(Subscription { endpoint: endpoint?, keys: keys? })
    });
    let locale = fields.optional_string("locale", |locale| {
        let fits = locale.len() <= MAX_LOCALE_CHARS
            && locale.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        fits.then_some(()).ok_or("must be a language tag of 35 characters at most")
    });
    let preview = fields.optional_bool("preview");
    fields.finish()?;
    let Some(platform) = platform else {
        return Err(Error::field("platform", format!("must be {WORDS}")));
    };
    let new = NewDevice { platform, token, subscription, locale, preview };
    Ok(Json(context.chats.put_device(&user.0, &device_id, &new).await?))
}

fn read_keys(subscription: &mut Fields, mut keys: Fields) -> Option<SubscriptionKeys> {
    let any = |_: &str| Ok(());
    let p256dh = keys.required_string("p256dh", any);
    let auth = keys.required_string("auth", any);
    subscription.nest("keys", keys);
    Some(SubscriptionKeys { p256dh: p256dh?, auth: auth? })
}

/// Forgets a device of the caller's, which is told of nothing any more.
#[utoipa::path(delete, path = "/devices/{device_id}/", tag = "devices", params(
    ("device_id" = String, Path),
), responses(
    (status = 204, description = "Forgotten, or not there"),
))]
pub(super) async fn delete_device(
    State(context): State<Context>,
    user: AuthUser,
    DevicePath(device_id): DevicePath,
) -> Result<StatusCode, Error> {
    context.chats.drop_device(user.id(), &device_id).await?;
    Ok(StatusCode::NO_CONTENT)
}
