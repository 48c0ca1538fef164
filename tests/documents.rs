//! The OpenAPI document, pinned: a change of the REST interface, or of the text of a failure, shows in
//! the diff of a snapshot. `INSTA_UPDATE=always cargo test --test documents` accepts the change.
//!
//! The AsyncAPI document needs none: `src/api/asyncapi.json` is served as it is.

use serde_json::Value;

#[test]
fn openapi() {
    let mut document: Value = serde_json::from_str(&beseda::api::openapi_json()).expect("JSON");
    // A release is no change of the interface.
    document["info"]["version"] = "0.0.0".into();
    // Which order a map keeps depends on the features that other crates of a build ask for.
    insta::with_settings!({ sort_maps => true }, { insta::assert_json_snapshot!(document) });
}
