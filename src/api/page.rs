//! The demo page, embedded: its own files, and the client library that it uses; how pages are served.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{context::Context, error::Error};

/// What the demo page may do: nothing inline, nothing from elsewhere but sockets, avatars and attachments, which
/// may lie in an object store; `blob:` are files that are about to be sent.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self' https: ws: wss:; img-src 'self' blob: data: https:; \
    media-src 'self' blob: https:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// An embedded file.
struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($folder:literal, $($name:literal: $kind:ident),* $(,)?) => {
        &[$(Asset {
            name: $name,
            kind: $kind,
            body: include_str!(concat!("../../", $folder, "/", $name)),
        }),*]
    };
}

/// The page's own files.
const PAGE: &[Asset] = assets! {
    "web",
    "index.html": HTML,
    "style.css": CSS,
    "carried.css": CSS,
    "docs.css": CSS,
    "app.js": JS,
    "attachments.js": JS,
    "blurhash.js": JS,
    "dom.js": JS,
    "emoji.js": JS,
    "fold.js": JS,
    "happened.js": JS,
    "i18n.js": JS,
    "mentions.js": JS,
    "menu.js": JS,
    "push.js": JS,
    "results.js": JS,
    "rights.js": JS,
    "rows.js": JS,
    "session.js": JS,
    "sign-in.js": JS,
    "sw.js": JS,
    "text.js": JS,
    "view-attachments.js": JS,
    "view-bans.js": JS,
    "view-chat.js": JS,
    "view-chats.js": JS,
    "view-composer.js": JS,
    "view-details.js": JS,
    "view-files.js": JS,
    "view-find.js": JS,
    "view-group.js": JS,
    "view-invites.js": JS,
    "view-lightbox.js": JS,
    "view-members.js": JS,
    "view-mentions.js": JS,
    "view-message.js": JS,
    "view-pins.js": JS,
    "view-quote.js": JS,
    "view-reactions.js": JS,
    "view-rules.js": JS,
    "view-search.js": JS,
    "view-timeline.js": JS,
    "words-en.js": JS,
    "words-ru.js": JS,
};

/// The page's service worker, which shows notifications.
const WORKER: &str = "sw.js";

/// The client library, served at the path that it has in the repository: so the page's imports are
/// the same there and here, and nothing has to be built.
const CLIENT: &[Asset] = assets! {
    "clients/typescript/src",
    "annotations.js": JS,
    "api.js": JS,
    "carried.js": JS,
    "chats.js": JS,
    "client.js": JS,
    "connection.js": JS,
    "emitter.js": JS,
    "errors.js": JS,
    "groups.js": JS,
    "history.js": JS,
    "incoming.js": JS,
    "index.js": JS,
    "list.js": JS,
    "live.js": JS,
    "outbox.js": JS,
    "people.js": JS,
    "pins.js": JS,
    "ranking.js": JS,
    "reactions.js": JS,
    "renewal.js": JS,
    "sender.js": JS,
    "surely.js": JS,
    "timeline.js": JS,
    "token.js": JS,
    "transfer.js": JS,
    "typing.js": JS,
    "uploads.js": JS,
};

pub(super) async fn page() -> Result<Response, Error> {
    serve(PAGE, "index.html")
}

pub(super) async fn asset(Path(name): Path<String>) -> Result<Response, Error> {
    let mut response = serve(PAGE, &name)?;
    if name == WORKER {
        // The page that it works for is one folder above it, wherever a proxy has put both.
        let allowed = HeaderName::from_static("service-worker-allowed");
        response.headers_mut().insert(allowed, HeaderValue::from_static("../"));
    }
    Ok(response)
}

/// A page made by the program, under the same policy.
pub(super) fn made(html: bytes::Bytes) -> Response {
    shown(HTML, html)
}

pub(super) async fn client(Path(name): Path<String>) -> Result<Response, Error> {
    serve(CLIENT, &name)
}

fn serve(assets: &[Asset], name: &str) -> Result<Response, Error> {
    let asset = assets.iter().find(|asset| asset.name == name).ok_or(Error::RouteNotFound)?;
    Ok(shown(asset.kind, asset.body))
}

fn shown(kind: &'static str, body: impl IntoResponse) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // Part of the binary: a new release must show at once.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, body).into_response()
}

/// A demo user, as whom the page can be used without a host application.
#[derive(Serialize)]
pub(super) struct Person<'a> {
    name: &'a str,
    token: &'a str,
}

/// Lists the demo users; only `beseda dev` has any.
pub(super) async fn people(State(context): State<Context>) -> Response {
    let people = context.config.demo_people.iter();
    let people: Vec<_> =
        people.map(|(name, token)| Person { name, token: token.expose() }).collect();
    ([(header::CACHE_CONTROL, "no-store")], Json(people)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_module_imports_is_embedded() {
        let mut imports = 0;
        for (assets, own) in [(PAGE, true), (CLIENT, false)] {
            for asset in assets.iter().filter(|asset| asset.kind == JS) {
                for rest in asset.body.split(" from '").skip(1) {
                    let path = rest.split('\'').next().unwrap_or_default();
                    let (from, name) = match path.strip_prefix("../clients/typescript/src/") {
                        Some(name) if own => (CLIENT, name),
                        _ => (assets, path.strip_prefix("./").unwrap_or(path)),
                    };
                    assert!(from.iter().any(|a| a.name == name), "{}: {path}", asset.name);
                    imports += 1;
                }
            }
        }
        assert!(imports > 20, "{imports}");
    }
}
