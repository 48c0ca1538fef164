//! Compares every answer and every frame of all tests with the published documents: an undocumented
//! one fails the test.

use std::{collections::HashMap, sync::LazyLock};

use jsonschema::Validator;
use serde_json::{Value, json};

use super::Answer;

const NDJSON: &str = "application/x-ndjson";

/// One call of the OpenAPI document.
struct Call {
    method: String,
    /// The path's segments; `{…}` matches any one.
    path: Vec<String>,
    responses: HashMap<u16, Response>,
}

struct Response {
    /// Schemas by media type; none for an answer without a body.
    bodies: HashMap<String, Validator>,
    required_headers: Vec<String>,
}

static CALLS: LazyLock<Vec<Call>> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(&beseda::api::openapi_json()).expect("JSON");
    let mut calls = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let responses = operation["responses"].as_object().expect("responses");
            calls.push(Call {
                method: method.to_uppercase(),
                path: segments(path),
                responses: responses
                    .iter()
                    .map(|(status, one)| {
                        (status.parse().expect("a status"), response(&document, one))
                    })
                    .collect(),
            });
        }
    }
    calls
});

fn segments(path: &str) -> Vec<String> {
    path.trim_end_matches('/').split('/').map(str::to_owned).collect()
}

fn response(document: &Value, response: &Value) -> Response {
    let bodies = response["content"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(kind, content)| (kind.clone(), validator(document, &content["schema"])));
    let headers = response["headers"].as_object().into_iter().flatten();
    let required = headers.filter(|(name, _)| {
        document["components"]["headers"][name.as_str()]["required"] == Value::Bool(true)
    });
    Response {
        bodies: bodies.collect(),
        required_headers: required.map(|(name, _)| name.clone()).collect(),
    }
}

/// Compiles one of the document's schemas. Unknown members are errors too, though clients ignore them.
fn validator(document: &Value, schema: &Value) -> Validator {
    // Beside the components that its references lead to.
    let schema = json!({
        "components": document["components"], "allOf": [schema], "unevaluatedProperties": false,
    });
    jsonschema::validator_for(&schema).expect("a JSON schema")
}

/// Panics if the answer to a documented call is not documented.
pub(super) fn check_answer(answer: &Answer) {
    let Answer { asked, status, headers, text, .. } = answer;
    let status = *status;
    let Some((method, url)) = asked.split_once(' ') else { return };
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    let path = segments(&format!("/{}", path.split(['?', '#']).next().unwrap_or_default()));
    let fits = |call: &&Call| {
        let alike = |(a, b): (&String, &String)| a == b || a.starts_with('{') && !b.is_empty();
        call.path.len() == path.len() && call.path.iter().zip(&path).all(alike)
    };
    // `/chats/unread/` is no chat: what has fewer placeholders is meant.
    let holes = |call: &&Call| call.path.iter().filter(|part| part.starts_with('{')).count();
    let Some(meant) = CALLS.iter().filter(fits).min_by_key(holes) else { return };
    let Some(call) = CALLS.iter().find(|call| call.path == meant.path && call.method == method)
    else {
        return;
    };
    // The internal port has none of the calls.
    if text.contains("\"code\":\"route_not_found\"") {
        return;
    }
    let Some(response) = call.responses.get(&status) else {
        panic!("{asked}: the OpenAPI document knows no {status}, but it was answered: {text}");
    };
    // Of the refusals with 403, slow mode alone says how long to wait.
    let lasting = status == 403 && !text.contains("\"code\":\"slow_mode\"");
    for name in response.required_headers.iter().filter(|name| !lasting || *name != "Retry-After") {
        assert!(headers.contains_key(name), "{asked}: {status} without {name}");
    }
    if response.bodies.is_empty() {
        assert!(text.is_empty(), "{asked}: {status} has a body: {text}");
        return;
    }
    let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or("none");
    let Some(schema) = response.bodies.get(kind) else {
        // Bytes of any type.
        if response.bodies.contains_key("*/*") {
            return;
        }
        panic!("{asked}: the OpenAPI document knows no {kind} with {status}");
    };
    // Of JSON lines, each is one.
    let bodies = if kind == NDJSON { text.lines().collect() } else { vec![text.as_str()] };
    for text in bodies {
        let body: Value =
            serde_json::from_str(text).unwrap_or_else(|e| panic!("{asked}: {e}: {text}"));
        if let Err(error) = schema.validate(&body) {
            panic!(
                "{asked}: {status} is not as documented: {error} at {}: {text}",
                error.instance_path()
            );
        }
    }
}

/// Returns the schemas of the server's frames by `type`, from the socket of many chats, which has all.
static FRAMES: LazyLock<HashMap<String, Validator>> = LazyLock::new(|| {
    let document: Value =
        serde_json::from_str(include_str!("../../../src/api/asyncapi.json")).expect("JSON");
    let sent = document["operations"]["toManyClient"]["messages"].as_array().expect("messages");
    let validators = sent.iter().map(|reference| {
        let key = reference["$ref"].as_str().and_then(|path| path.rsplit('/').next());
        let message = &document["components"]["messages"][key.expect("a reference")];
        let name = message["name"].as_str().expect("a name").to_owned();
        (name, validator(&document, &message["payload"]))
    });
    validators.collect()
});

/// Panics if a frame of the server contradicts the AsyncAPI document.
pub(super) fn check_frame(frame: &Value) {
    let kind = frame["type"].as_str().unwrap_or_else(|| panic!("a frame without a type: {frame}"));
    let schema =
        FRAMES.get(kind).unwrap_or_else(|| panic!("the AsyncAPI document knows no {frame}"));
    if let Err(error) = schema.validate(frame) {
        panic!("a frame is not as documented: {error} at {}: {frame}", error.instance_path());
    }
}
