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

/// A push as it came.
#[derive(Debug)]
struct Push {
    device: String,
    body: Bytes,
    came: Instant,
    /// Microseconds since 1970.
    at: i64,
}

#[derive(Debug)]
struct Shared {
    /// One for all devices: what is measured is the sender.
    key: SecretKey,
    auth: [u8; 16],
    shown: Mutex<Shown>,
    is_failing: AtomicBool,
}

/// What the devices show.
#[derive(Debug, Default)]
struct Shown {
    devices: HashMap<String, Device>,
    log: Vec<Told>,
    unreadable: u64,
    /// To be read when somebody asks: a push service does not read them, and with phones on the sender's machine,
    /// where one takes as long as the sender for a push, the sender would seem to be slow.
    unread: Vec<Push>,
}

impl Shown {
    fn show(&mut self, Push { device, came, at, .. }: Push, content: Content) {
        if let (Some(chat_id), Some(seq), Some(message_id)) =
            (content.chat_id, content.seq, content.message_id)
        {
            self.log.push(Told { device: device.clone(), chat_id, seq, message_id, at });
        }
        let device = self.devices.entry(device).or_default();
        device.pushes += 1;
        device.badge = content.badge;
        if let Some(message_id) = content.message_id {
            let before = device.told.len();
            device.told.entry(message_id).or_insert(came);
            device.doubled += u64::from(device.told.len() == before);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Shown> {
        // Each change is whole by itself.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what has come.
    fn shown(&self) -> MutexGuard<'_, Shown> {
        let mut shown = self.lock();
        let auth = Auth::clone_from_slice(&self.auth);
        for push in std::mem::take(&mut shown.unread) {
            let content = decrypt(push.body.to_vec(), &self.key, &auth).ok();
            match content.and_then(|plain| serde_json::from_slice::<Content>(&plain).ok()) {
                Some(content) => shown.show(push, content),
                None => shown.unreadable += 1,
            }
        }
        shown
    }
}

/// How many pushes have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub pushes: u64,
    /// A second time.
    pub doubled: u64,
    pub unreadable: u64,
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
            shown: Mutex::default(),
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
        self.shared.shown().log.clone()
    }

    /// What this device was given.
    pub(crate) fn device(&self, device: &str) -> Device {
        self.shared.shown().devices.get(device).cloned().unwrap_or_default()
    }

    pub(crate) fn totals(&self) -> Totals {
        let shown = self.shared.shown();
        let sum = |of: fn(&Device) -> u64| shown.devices.values().map(of).sum();
        Totals {
            pushes: sum(|device| device.pushes),
            doubled: sum(|device| device.doubled),
            unreadable: shown.unreadable,
        }
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    Path(device): Path<String>,
    body: Bytes,
) -> StatusCode {
    let came = Instant::now();
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
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    shared.lock().unread.push(Push { device, body, came, at });
    StatusCode::CREATED
}
