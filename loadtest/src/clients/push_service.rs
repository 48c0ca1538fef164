//! A Web Push service: takes pushes as a browser's does, reads them, and keeps what each device shows.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use beseda_protocol::{
    model::{ChatId, MessageId, PushPlatform},
    rest::{NewDevice, Subscription, SubscriptionKeys},
};
use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinSet};
use web_push_native::{
    Auth, decrypt,
    p256::{SecretKey, elliptic_curve::sec1::ToEncodedPoint},
};

use crate::error::Error;

/// What a device reads of a push.
#[derive(Debug, Deserialize)]
struct Content {
    badge: i64,
    message_id: Option<MessageId>,
    chat_id: Option<ChatId>,
    seq: Option<i64>,
}

/// Settings of replicas that push here. The key is of these tests only.
pub(crate) const SETTINGS: [(&str, &str); 3] = [
    ("BESEDA_VAPID_KEY", "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"),
    ("BESEDA_VAPID_SUBJECT", "mailto:loadtest@example.com"),
    ("BESEDA_PUSH_ALLOW_PRIVATE", "on"),
];

/// Of a hundred pushes, how many are refused and how many wait in vain for an answer, where that is asked for.
const REFUSED: u32 = 3;
const SILENT: u32 = 1;

/// Longer than the sender waits.
const SILENCE: Duration = Duration::from_secs(3);

/// A message that a device was told of, each time.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub device: String,
    pub chat_id: ChatId,
    pub seq: i64,
    pub message_id: MessageId,
    /// Microseconds since 1970.
    pub at: i64,
}

/// What a device was given.
#[derive(Debug, Default, Clone)]
pub(crate) struct Device {
    /// The latest badge; 0 before the first push.
    pub badge: i64,
    pub pushes: u64,
    /// When it was told of each message, of one that came twice the first time.
    pub told: HashMap<MessageId, Instant>,
    pub doubled: u64,
}

#[derive(Debug)]
struct Shared {
    /// One for all devices: what is measured is the sender.
    key: SecretKey,
    auth: [u8; 16],
    devices: Mutex<HashMap<String, Device>>,
    log: Mutex<Vec<Told>>,
    is_failing: AtomicBool,
}

impl Shared {
    fn devices(&self) -> MutexGuard<'_, HashMap<String, Device>> {
        // Each change is whole by itself.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The service, on a port of this machine; ends on drop.
#[derive(Debug)]
pub(crate) struct PushService {
    url: String,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

impl PushService {
    pub(crate) async fn start() -> Result<Self, Error> {
        let failed = |error| Error::Io("the push service did not start", error);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let url = format!("http://{}", listener.local_addr().map_err(failed)?);
        // A random number is a valid key but for one in 2^32.
        let key = loop {
            if let Ok(key) = SecretKey::from_slice(&rand::random::<[u8; 32]>()) {
                break key;
            }
        };
        let shared = Arc::new(Shared {
            key,
            auth: rand::random(),
            devices: Mutex::default(),
            log: Mutex::default(),
            is_failing: AtomicBool::new(false),
        });
        let router =
            Router::new().route("/{device}", post(receive)).with_state(Arc::clone(&shared));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            // Ends with the run.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { url, shared, _serving: serving })
    }

    /// What a client registers for a device of this name.
    pub(crate) fn subscription(&self, device: &str) -> NewDevice {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let point = self.shared.key.public_key().to_encoded_point(false);
        let keys =
            SubscriptionKeys { p256dh: encode(point.as_bytes()), auth: encode(&self.shared.auth) };
        let endpoint = format!("{}/{device}", self.url);
        NewDevice {
            platform: PushPlatform::Webpush,
            token: None,
            subscription: Some(Subscription { endpoint, keys }),
            locale: None,
            preview: Some(true),
        }
    }

    /// Whether some pushes are refused or not answered; these have not come.
    pub(crate) fn fail_now_and_then(&self, fail: bool) {
        self.shared.is_failing.store(fail, Ordering::Relaxed);
    }

    /// The messages that devices were told of, in the order in which they came.
    pub(crate) fn log(&self) -> Vec<Told> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What this device was given.
    pub(crate) fn device(&self, device: &str) -> Device {
        self.shared.devices().get(device).cloned().unwrap_or_default()
    }

    /// How many pushes have come, and how many of them a second time.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let devices = self.shared.devices();
        let sum = |of: fn(&Device) -> u64| devices.values().map(of).sum();
        (sum(|device| device.pushes), sum(|device| device.doubled))
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    Path(device): Path<String>,
    body: Bytes,
) -> StatusCode {
    let now = Instant::now();
    if shared.is_failing.load(Ordering::Relaxed) {
        match rand::random_range(0..100) {
            0..REFUSED => return StatusCode::SERVICE_UNAVAILABLE,
            lot if lot < REFUSED + SILENT => {
                tokio::time::sleep(SILENCE).await;
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            _ => {}
        }
    }
    let auth = Auth::clone_from_slice(&shared.auth);
    let content = decrypt(body.to_vec(), &shared.key, &auth).ok();
    let content = content.and_then(|plain| serde_json::from_slice::<Content>(&plain).ok());
    let Some(content) = content else { return StatusCode::BAD_REQUEST };
    if let (Some(chat_id), Some(seq), Some(message_id)) =
        (content.chat_id, content.seq, content.message_id)
    {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        let told = Told { device: device.clone(), chat_id, seq, message_id, at };
        shared.log.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }
    let mut devices = shared.devices();
    let device = devices.entry(device).or_default();
    device.pushes += 1;
    device.badge = content.badge;
    if let Some(message_id) = content.message_id {
        let before = device.told.len();
        device.told.entry(message_id).or_insert(now);
        device.doubled += u64::from(device.told.len() == before);
    }
    StatusCode::CREATED
}
