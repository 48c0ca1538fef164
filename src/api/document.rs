//! The OpenAPI document, made of the handlers' annotations and the parts common to all calls.
//!
//! A handler's annotation describes its request and response. This module adds the failures, with
//! examples made by the code that renders them.

mod failures;

use std::collections::BTreeMap;

use beseda_protocol::Problem;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use self::failures::{ANY_FAILURE, BODY_FAILURES, FAILURES, FORBIDDEN, failures, internal};
use super::{MAX_BULK_BODY_BYTES, classes, problem::problem};
use crate::error::Error;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Beseda",
        description = "Chats of two and of many that another application embeds. Every path also works \
                       without its trailing slash. Failures are application/problem+json; go by \
                       `code`, which is stable. Fields and query parameters that are not known are \
                       ignored, and clients must ignore those that they do not know. \
                       [The socket protocol](/docs/socket/) has a page of its own."
    ),
    modifiers(&BearerToken),
    security(("token" = [])),
    components(schemas(Problem)),
    tags(
        (name = "chats", description = "Chats, read markers, search"),
        (name = "groups", description = "Groups: their settings, members, bans, invitations"),
        (name = "messages", description = "History, sending, editing, deleting, reporting"),
        (name = "attachments", description = "Files that belong to a message"),
        (name = "users", description = "Users, and whom one has blocked"),
        (name = "devices", description = "Devices that are told of messages by push"),
        (name = "sockets", description = "Tickets; [the protocol](/docs/socket/) is in /asyncapi.json"),
    )
)]
struct Document;

struct BearerToken;

impl utoipa::Modify for BearerToken {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("token", SecurityScheme::Http(token));
    }
}

/// Types of requests, and the one of an event whose members depend on its kind. All other types always
/// have all members, null if empty.
const PARTIAL: &[&str] = &[
    "SystemEvent",
    "NewChat",
    "NewSettings",
    "ChatChange",
    "OwnSettings",
    "NewMembers",
    "MemberChange",
    "NewBan",
    "NewInvite",
    "NewMessage",
    "NewAttachment",
    "Edit",
    "MarkRead",
    "NewReport",
    "NewProfile",
    "NewDevice",
    "Subscription",
    "SubscriptionKeys",
    "NewUser",
    "NewUsers",
    "Problem",
];

/// Members that not every object of their type has.
const OPTIONAL: [(&str, &str); 1] = [("Message", "my_reactions")];

/// Real values of the documented types, by name.
const EXAMPLES: &str = include_str!("examples.json");

/// The OpenAPI 3.1 document.
pub fn openapi_json() -> String {
    // Merged first, because nesting them one by one keeps only the methods of a path's last class.
    let all =
        classes().into_iter().fold(OpenApiRouter::new(), |all, (_, routes)| all.merge(routes));
    let document = OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", all);
    let (_, document) = document.split_for_parts();
    // Serialising plain structs cannot fail.
    let mut document = serde_json::to_value(document).unwrap_or_default();
    for operation in operations(&mut document) {
        complete(operation);
    }
    describe_schemas(&mut document["components"]["schemas"]);
    document["components"]["headers"] = headers();
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let paths = document["paths"].as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    let methods = paths.filter_map(Value::as_object_mut).flat_map(|path| path.values_mut());
    methods.filter_map(Value::as_object_mut)
}

/// Calls that take a body of up to 1 MiB.
const LARGE_BODIES: [&str; 3] = ["open_chat", "add_members", "post_users"];

/// Rate-limit headers of responses to calls with a token.
const RATE_HEADERS: [&str; 3] = ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"];

/// Adds a call's failures and the headers of its responses.
fn complete(operation: &mut Map<String, Value>) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let own = FAILURES.iter().find(|(known, _)| *known == id).map_or(&[][..], |(_, codes)| codes);
    let body = if operation.contains_key("requestBody") { BODY_FAILURES } else { &[] };
    let codes = [ANY_FAILURE, body, own].concat();
    let mut by_status: BTreeMap<u16, Vec<Problem>> = BTreeMap::new();
    for error in failures().iter().chain([&internal()]).filter(|e| codes.contains(&e.code())) {
        let words = FORBIDDEN.iter().find(|(calls, _)| calls.contains(&id.as_str()));
        let error = match (error, words) {
            (Error::Forbidden(_), Some((_, words))) => Error::Forbidden(words),
            (error, _) => error.clone(),
        };
        let problem = problem(&error, "01a20a32-faed-704e-b46a-598e38f1ce60");
        by_status.entry(error.status().as_u16()).or_default().push(problem);
    }
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else {
        return;
    };
    for response in responses.values_mut().filter_map(Value::as_object_mut) {
        let named = response.entry("headers").or_insert_with(|| json!({}));
        for name in ["X-Request-Id"].iter().chain(&RATE_HEADERS) {
            named[*name] = header(name);
        }
    }
    for (status, problems) in by_status {
        responses.insert(status.to_string(), failure(status, problems));
    }
    if LARGE_BODIES.contains(&id.as_str()) {
        responses["413"]["description"] =
            json!(format!("`payload_too_large`: more than {MAX_BULK_BODY_BYTES} bytes"));
    }
}

/// Builds the response of one status.
fn failure(status: u16, problems: Vec<Problem>) -> Value {
    let description: Vec<String> =
        problems.iter().map(|one| format!("`{}`: {}", one.code, one.detail)).collect();
    let codes: Vec<&str> = problems.iter().map(|one| &*one.code).collect();
    let mut headers = json!({ "X-Request-Id": header("X-Request-Id") });
    // A time-out may come before the token was verified, so it has no rate.
    if !matches!(status, 401 | 504) {
        RATE_HEADERS.iter().for_each(|name| headers[*name] = header(name));
    }
    match status {
        401 => headers["WWW-Authenticate"] = header("WWW-Authenticate"),
        429 | 503 => headers["Retry-After"] = header("Retry-After"),
        403 if codes.contains(&"slow_mode") => {
            headers["Retry-After"] = json!({
                "description": "With `slow_mode`: seconds, rounded up",
                "schema": { "type": "integer", "minimum": 1 },
            });
        }
        _ => {}
    }
    let schema = json!({ "allOf": [
        { "$ref": "#/components/schemas/Problem" },
        { "properties": { "status": { "const": status }, "code": { "enum": codes } } },
    ]});
    let examples: Map<String, Value> =
        problems.iter().map(|one| (one.code.to_string(), json!({ "value": one }))).collect();
    json!({
        "description": description.join("\n\n"),
        "headers": headers,
        "content": { "application/problem+json": { "schema": schema, "examples": examples } },
    })
}

fn header(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

fn headers() -> Value {
    let whole = |description: &str| json!({ "description": description, "schema": { "type": "integer", "minimum": 0 } });
    json!({
        "X-Request-Id": {
            "description": "The request's id: the client's own where it sent a well-formed one",
            "required": true,
            "schema": { "type": "string", "maxLength": 128 },
        },
        "WWW-Authenticate": {
            "description": "RFC 6750", "required": true,
            "schema": { "type": "string", "const": "Bearer" },
        },
        "Retry-After": {
            "description": "Seconds, rounded up; `retry_after_ms` is more precise",
            "required": true, "schema": { "type": "integer", "minimum": 1 },
        },
        "RateLimit-Limit": whole("How many requests of this class may come at once"),
        "RateLimit-Remaining": whole("How many are left at this moment"),
        "RateLimit-Reset": whole("Seconds until all of them may come again"),
    })
}

fn describe_schemas(schemas: &mut Value) {
    // An embedded file; a test parses it too.
    let mut examples: Map<String, Value> = serde_json::from_str(EXAMPLES).unwrap_or_default();
    for (name, schema) in schemas.as_object_mut().into_iter().flatten() {
        if let Some(example) = examples.remove(name) {
            schema["examples"] = json!([example]);
        }
        if PARTIAL.contains(&name.as_str()) {
            continue;
        }
        if let Some(members) = schema["properties"].as_object() {
            let members = members.keys().filter(|member| !OPTIONAL.contains(&(name, member)));
            let members: Vec<&String> = members.collect();
            schema["required"] = json!(members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_says_how_it_fails_and_every_failure_is_some_calls() {
        let mut document: Value = serde_json::from_str(&openapi_json()).unwrap();
        let known: Vec<&str> = FAILURES.iter().map(|(id, _)| *id).collect();
        let mut calls = Vec::new();
        for operation in operations(&mut document) {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(known.contains(&id.as_str()), "{id} does not say how it fails");
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(response["description"].is_string(), "{id} {status}");
            }
            calls.push(id);
        }
        assert_eq!(calls.len(), known.len(), "{known:?} are more than there are");
        let codes: Vec<&str> = FAILURES
            .iter()
            .flat_map(|(_, codes)| *codes)
            .copied()
            .chain(ANY_FAILURE.iter().copied())
            .chain(BODY_FAILURES.iter().copied())
            .collect();
        for error in failures() {
            assert!(codes.contains(&error.code()), "{}", error.code());
        }
        for code in codes {
            let shown = failures().iter().any(|error| error.code() == code);
            assert!(shown || code == "internal", "{code} has no example");
        }
    }

    #[test]
    fn every_example_is_of_a_type_that_there_is() {
        let document: Value = serde_json::from_str(&openapi_json()).unwrap();
        let examples: Map<String, Value> = serde_json::from_str(EXAMPLES).unwrap();
        for name in examples.keys() {
            assert!(document["components"]["schemas"][name]["examples"].is_array(), "{name}");
        }
    }
}
