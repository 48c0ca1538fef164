//! Pages of which origins may open sockets and call the API.

use std::process::Command;

use reqwest::Method;

use crate::harness::{Cluster, SECRET, Socket, User};

/// Tells whether a socket opens on a replica with these headers, of which `origin` names a page.
async fn opens(user: &User, replica: usize, headers: &[(&'static str, &str)]) -> bool {
    let url = format!("ws://{}/ws/", user.on(replica).host());
    let bearer = format!("Bearer {}", user.token);
    let mut all = vec![("authorization", &*bearer)];
    all.extend(headers);
    match Socket::open_with(&url, &all).await {
        Ok(mut socket) => {
            socket.expect("hello").await;
            true
        }
        Err(answer) => {
            assert_eq!(answer.status(), 403, "{headers:?}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_origin_is_allowed_however_it_is_written_for_sockets_and_for_the_api() {
    let cluster = Cluster::with(1, |config| {
        let written = [
            "https://a.example/",
            " HTTPS://B.Example:443",
            "https://чат.рф",
            "http://c.example:80/",
        ];
        config.allowed_origins = written.map(|it| it.parse().expect("an origin")).into();
    })
    .await;
    let alice = cluster.user("alice");
    let allowed = [
        "https://a.example",
        "https://b.example",
        "https://xn--80a0bn.xn--p1ai",
        "http://c.example",
    ];
    let foreign = [
        "http://a.example",
        "https://a.example:8443",
        "https://a.example.evil.example",
        "https://evil.example",
        "https://c.example",
        "null",
    ];
    for (origin, may) in
        allowed.map(|origin| (origin, true)).into_iter().chain(foreign.map(|it| (it, false)))
    {
        assert_eq!(opens(&alice, 0, &[("origin", origin)]).await, may, "{origin}");
        let answer = alice.on(0).get("/chats/").header("origin", origin).await;
        let told = answer.header("access-control-allow-origin");
        assert_eq!(told, may.then_some(origin));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_allowed_origins_may_call_the_api_and_no_others() {
    let cluster = Cluster::with(1, |config| {
        config.allowed_origins = vec!["https://app.example.com".parse().expect("an origin")];
    })
    .await;
    let alice = cluster.user("alice");
    let preflight = async |origin: &str| {
        let request = cluster.anyone(0).request(Method::OPTIONS, "/api/v1/chats/");
        let request =
            request.header("origin", origin).header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "authorization,content-type").await
    };
    let allowed = preflight("https://app.example.com").await;
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example.com"));
    let headers = allowed.header("access-control-allow-headers").expect("headers").to_lowercase();
    assert!(headers.contains("authorization"), "{headers}");
    assert_eq!(
        preflight("https://evil.example.com").await.header("access-control-allow-origin"),
        None
    );
    // A refusal, too, must be readable to the page.
    for path in ["/chats/", "/chats/nonsense/"] {
        let answer = alice.on(0).get(path).header("origin", "https://app.example.com").await;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some("https://app.example.com"),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_at_home_whatever_the_case_and_the_port_of_its_host() {
    let mut cluster = Cluster::start(1).await;
    let ours = "::ffff:127.0.0.1".parse().expect("an address");
    let proxied = cluster.add_replica_with(|config| config.trusted_proxies = vec![ours]).await;
    let alice = cluster.user("alice");
    for (origin, host, may) in [
        ("https://chat.example", "chat.example", true),
        ("https://chat.example", "chat.example:443", true),
        ("http://chat.example", "chat.example:80", true),
        ("https://chat.example", "Chat.Example", true),
        ("http://chat.example:8080", "CHAT.example:8080", true),
        ("https://chat.example:8443", "chat.example", false),
        ("https://chat.example", "chat.example:8443", false),
        ("https://evil.example", "chat.example", false),
    ] {
        let told = [("origin", origin), ("x-forwarded-host", host)];
        assert_eq!(opens(&alice, proxied, &told).await, may, "{origin} {host}");
        let said = opens(&alice, 0, &[("origin", origin), ("host", host)]).await;
        assert_eq!(said, may, "{origin} {host}");
    }
    let url = async |scheme: &str| {
        let request = alice.on(proxied).request(Method::POST, "/api/v1/connect/");
        let request = request.header("x-forwarded-host", "Chat.Example:443");
        let told = request.header("x-forwarded-proto", scheme).await.expect(200);
        let url = told["ws_url"].as_str().expect("a URL").to_owned();
        url.split("/ws/").next().expect("a first part").to_owned()
    };
    for scheme in ["https", "HTTPS", "Https, http", "wss"] {
        assert_eq!(url(scheme).await, "wss://chat.example", "{scheme}");
    }
    assert_eq!(url("http").await, "ws://chat.example:443");
}

#[tokio::test(flavor = "multi_thread")]
async fn origins_that_cannot_be_meant_keep_a_replica_from_starting_and_say_why() {
    let started = |setting: &str, value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beseda"));
        // Neither server is contacted: settings are checked first.
        let needed = [
            ("BESEDA_DATABASE_WAIT", "0s"),
            ("DATABASE_URL", "postgresql://127.0.0.1:1/x"),
            ("REDIS_URL", "redis://127.0.0.1:1"),
            ("BESEDA_JWT_HS256_SECRET", SECRET),
        ];
        command.arg("serve").env_clear().envs(needed).env(setting, value);
        let output = command.output().expect("the program runs");
        assert!(!output.status.success(), "{value}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (value, reason) in [
        ("*", "`*` is no origin"),
        ("https://a.example,*", "`*` is no origin"),
        ("https://*.example", "`*`"),
        ("null", "`null`"),
        ("a.example", "a scheme"),
        ("https://a.example/chat", "no path"),
        ("wss://a.example", "no page"),
    ] {
        let told = started("BESEDA_ALLOWED_ORIGINS", value);
        assert!(told.contains(reason) && !told.contains("panicked"), "{value}: {told}");
    }
    for (value, reason) in [
        ("https://chat.example/path", "no path"),
        ("chat.example", "a scheme"),
        ("ftp://chat.example", "must be http:// or https://"),
    ] {
        let told = started("BESEDA_PUBLIC_URL", value);
        assert!(told.contains(reason), "{value}: {told}");
    }
}
