//! The groups of `beseda dev`: made through the API, as a host application would.

use std::{net::SocketAddr, time::Duration};

use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::DevError;
use crate::tls;

/// Time-out of a request: a replica that has just started answers within some milliseconds.
const TIME_OUT: Duration = Duration::from_secs(10);

/// Names of the people who fill the large group; each first name comes with each family name.
const FIRST_NAMES: [&str; 20] = [
    "Ada", "Boris", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hana", "Ivan", "Jun", "Katya",
    "Lars", "Mei", "Nikola", "Olga", "Pavel", "Rosa", "Sami", "Tomas", "Yara",
];
const FAMILY_NAMES: [&str; 10] = [
    "Adler", "Bianchi", "Chen", "Demir", "Eriksen", "Fischer", "Ivanova", "Kowalski", "Novak",
    "Sato",
];

/// Members of the large group.
const LARGE: usize = 200;

/// A group that is there, with its owner's token's user in it.
#[derive(Debug, Deserialize)]
pub(super) struct Group {
    pub(super) room_name: String,
    pub(super) title: String,
    pub(super) member_count: usize,
}

/// Creates the groups, or finds those of an earlier start. Left out is one that was deleted, or that its
/// owner has left.
///
/// `users` are ids and tokens of those who use them, the owner first; `host` is a token with `chat:admin`.
pub(super) async fn groups(
    replica: SocketAddr,
    host: &str,
    users: &[(String, &str)],
) -> Result<Vec<Group>, DevError> {
    let api = Api::new(replica)?;
    // A first request makes its user known, by the name in the token.
    for (_, token) in users {
        api.call(Method::GET, "chats/?limit=1", token, None).await?;
    }
    let people = people();
    api.call(Method::POST, "users/", host, Some(json!({ "users": people }))).await?;
    let Some(((_, owner), others)) = users.split_first() else { return Ok(Vec::new()) };
    let few: Vec<&str> = others.iter().map(|(id, _)| id.as_str()).collect();
    let ids = people.iter().filter_map(|person| person["user_id"].as_str());
    let many: Vec<&str> = few.iter().copied().chain(ids).take(LARGE - 1).collect();
    let mut groups = Vec::new();
    for (key, title, members) in [("demo", "Demo", few), ("demo-of-many", "Demo of many", many)] {
        let body = json!({
            "kind": "group", "title": title, "user_ids": members, "client_chat_id": key,
        });
        groups.extend(api.call(Method::POST, "chats/", owner, Some(body)).await?);
    }
    groups.into_iter().map(|answer| serde_json::from_str(&answer).map_err(unexpected)).collect()
}

/// Returns people to be named, as many as a large group could need.
fn people() -> Vec<Value> {
    let names = FAMILY_NAMES
        .into_iter()
        .flat_map(|family| FIRST_NAMES.map(|first| format!("{first} {family}")));
    let person = |name: String| {
        let user_id = format!("demo-{}", name.to_lowercase().replace(' ', "-"));
        json!({ "user_id": user_id, "name": name })
    };
    names.map(person).collect()
}

struct Api {
    http: reqwest::Client,
    base: String,
}

impl Api {
    fn new(replica: SocketAddr) -> Result<Self, DevError> {
        let tls = tls::client_config(None).map_err(unexpected)?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(TIME_OUT)
            .build()
            .map_err(unexpected)?;
        Ok(Self { http, base: format!("http://{replica}/api/v1/") })
    }

    /// Returns the answer; `None` where there is no such chat any more.
    async fn call(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> Result<Option<String>, DevError> {
        let url = format!("{}{path}", self.base);
        let mut request = self.http.request(method, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.map_err(unexpected)?;
        let status = answer.status();
        let text = answer.text().await.map_err(unexpected)?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            _ if status.is_success() => Ok(Some(text)),
            _ => Err(DevError::Demo(format!("{} {text}", status.as_u16()))),
        }
    }
}

fn unexpected(error: impl std::fmt::Display) -> DevError {
    DevError::Demo(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn there_are_people_enough_and_each_is_another_one() {
        let people = people();
        let ids: HashSet<_> = people.iter().map(|person| person["user_id"].as_str()).collect();
        assert!(ids.len() >= LARGE && ids.len() == people.len());
    }
}
