//! Where events may go, and with which secrets: to nobody's private network, unless it is allowed.

use std::time::Duration;

use beseda::config::{Secret, Switch};

use super::{
    admin, all_is_decided, printed,
    receiver::{Receiver, SECRETS},
};
use crate::harness::Cluster;

/// Why no replica starts with such a URL.
async fn refusal(cluster: &Cluster, url: &str, private: Switch) -> String {
    let refused = cluster.refusal(|config| {
        config.webhooks.webhook_url = Some(url.parse().expect("a URL"));
        config.webhooks.webhook_secret = Some(Secret::from(SECRETS[0].to_owned()));
        config.webhooks.webhook_allow_private = private;
    });
    refused.await
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_not_reached_by_number_or_name() {
    let receiver = Receiver::start().await;
    let port = receiver.address.port();
    let settings = receiver.settings();
    let cluster = Cluster::with(1, |config| {
        settings(config);
        let url = format!("https://localhost:{port}/events");
        config.webhooks.webhook_url = Some(url.parse().expect("a URL"));
        config.webhooks.webhook_allow_private = Switch::Off;
        config.webhooks.webhook_max_age = Duration::ZERO;
    })
    .await;
    let (alice, bob) = (cluster.user("alice"), cluster.user("bob"));
    let chat = alice.on(0).open_chat(&bob).await;
    alice.on(0).send(&chat, "to nobody").await;
    all_is_decided(&cluster).await;
    let listed = printed(&admin(&cluster, &[]).await);
    assert!(listed.contains("its host has private addresses only"), "{listed}");

    for url in [
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[fd00::1]/",
        "https://[fe80::1]/",
    ] {
        let why = refusal(&cluster, url, Switch::Off).await;
        assert!(why.starts_with("BESEDA_WEBHOOK_URL: is a private address"), "{url}: {why}");
    }
    let plain = refusal(&cluster, "http://example.com/", Switch::Off).await;
    assert!(plain.starts_with("BESEDA_WEBHOOK_URL: must be https://"), "{plain}");
    let named = refusal(&cluster, "https://me:secret@example.com/", Switch::On).await;
    assert!(named.contains("no user and no password") && !named.contains("secret"), "{named}");
    for secret in [None, Some("short"), Some("not base64, not at all, not base64")] {
        let why = cluster.refusal(|config| {
            config.webhooks.webhook_url = Some("https://example.com/".parse().expect("a URL"));
            config.webhooks.webhook_secret = secret.map(|it| Secret::from(it.to_owned()));
        });
        let why = why.await;
        assert!(why.starts_with("BESEDA_WEBHOOK_SECRET: "), "{why}");
    }
}
