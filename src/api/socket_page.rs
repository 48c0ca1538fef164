//! Renders the AsyncAPI document of the socket protocol as an HTML page.

use std::fmt::Write as _;

use serde_json::Value;

/// The directions of frames: heading, AsyncAPI `action` (from the server's side, so that a client's
/// frames are `receive`), and prefix of the anchors.
const DIRECTIONS: [(&str, &str, &str); 2] =
    [("What a client sends", "receive", "client"), ("What the server sends", "send", "server")];

/// Further bounds of a field: JSON Schema keyword and wording.
const BOUNDS: [(&str, &str); 6] = [
    ("minimum", "at least"),
    ("maximum", "at most"),
    ("minLength", "characters, at least"),
    ("maxLength", "characters, at most"),
    ("minItems", "entries, at least"),
    ("maxItems", "entries, at most"),
];

/// Renders the page of an AsyncAPI 3.0 document whose references point into `components`.
pub(super) fn render(document: &Value) -> String {
    let page = Page { document };
    let title = escape(text(&document["info"]["title"]));
    format!(
        r##"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/assets/docs.css">
</head>
<body>
<header>
<h1>{title}</h1>
<nav aria-label="Other documents"><a href="/docs/">The REST API</a> <a href="/asyncapi.json">AsyncAPI</a> <a href="/">The demo page</a></nav>
</header>
<nav aria-label="On this page">{contents}</nav>
<main>
<section id="about"><h2>About</h2>{about}</section>
<section id="sockets"><h2>The sockets</h2>{sockets}</section>
<section id="auth"><h2>Authentication</h2>{auth}</section>
{frames}
<section id="types"><h2>Types</h2>{types}</section>
<section id="close-codes"><h2>Close codes</h2>{closes}</section>
</main>
</body>
</html>
"##,
        contents = page.contents(),
        about = page.about(),
        sockets = page.sockets(),
        auth = page.auth(),
        frames = page.frames(),
        types = page.types(),
        closes = page.close_codes(),
    )
}

struct Page<'a> {
    document: &'a Value,
}

impl<'a> Page<'a> {
    /// Resolves a `$ref`; returns any other value unchanged.
    fn resolve(&self, value: &'a Value) -> &'a Value {
        let pointer = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        match pointer.and_then(|pointer| self.document.pointer(pointer)) {
            Some(target) => self.resolve(target),
            None => value,
        }
    }

    fn contents(&self) -> String {
        let mut html = String::from(
            r##"<a href="#about">About</a><a href="#sockets">The sockets</a><a href="#auth">Authentication</a>"##,
        );
        for (heading, action, anchor) in DIRECTIONS {
            let _ = write!(html, r##"<a href="#{anchor}">{heading}</a><ul>"##);
            for (key, message, _) in self.messages(action) {
                let name = escape(text(&message["name"]));
                let _ = write!(html, r##"<li><a href="#{anchor}-{key}">{name}</a></li>"##);
            }
            html += "</ul>";
        }
        html + r##"<a href="#types">Types</a><a href="#close-codes">Close codes</a>"##
    }

    /// Renders the description. Its list of close codes is for tools that do not know
    /// `x-close-codes`; here they have their own table.
    fn about(&self) -> String {
        let paragraphs = text(&self.document["info"]["description"]).split("\n\n");
        let told = paragraphs.filter(|one| !one.starts_with("- ") && *one != "Close codes:");
        told.map(|paragraph| format!("<p>{}</p>", prose(paragraph))).collect()
    }

    fn sockets(&self) -> String {
        let mut html = String::new();
        for server in members(&self.document["servers"]).map(|(_, server)| server) {
            let _ = write!(html, "<p>{}</p>", prose(text(&server["description"])));
        }
        for (key, channel) in members(&self.document["channels"]) {
            let (address, about) = (text(&channel["address"]), text(&channel["description"]));
            let _ = write!(
                html,
                r#"<h3 id="socket-{key}"><code>{}</code></h3><p>{}</p>"#,
                escape(address),
                prose(about)
            );
            let binding = &channel["bindings"]["ws"];
            let mut rows = String::new();
            for (name, parameter) in members(&channel["parameters"]) {
                rows += &self.row(name, parameter, "in the path");
            }
            for (name, field) in members(&binding["query"]["properties"]) {
                rows += &self.row(name, field, "in the query");
            }
            for (name, field) in members(&binding["headers"]["properties"]) {
                rows += &self.row(name, field, "a header");
            }
            html += &table(["Name", "Where", "Type", "Meaning"], &rows);
        }
        html
    }

    fn auth(&self) -> String {
        let schemes = members(&self.document["components"]["securitySchemes"]);
        let items = schemes.map(|(name, scheme)| {
            let about = prose(text(&scheme["description"]));
            format!("<dt><code>{}</code></dt><dd>{about}</dd>", escape(name))
        });
        format!("<dl>{}</dl>", items.collect::<String>())
    }

    /// Lists each type of frame in one direction once, with the sockets that use it.
    fn messages(&self, action: &str) -> Vec<(&'a str, &'a Value, Vec<&'a str>)> {
        let mut found: Vec<(&str, &Value, Vec<&str>)> = Vec::new();
        let operations = members(&self.document["operations"]).map(|(_, operation)| operation);
        for operation in operations.filter(|operation| operation["action"] == action) {
            let address = text(&self.resolve(&operation["channel"])["address"]);
            for reference in operation["messages"].as_array().into_iter().flatten() {
                let key = last_part(text(&reference["$ref"]));
                match found.iter_mut().find(|(known, ..)| *known == key) {
                    Some((.., sockets)) => sockets.push(address),
                    None => found.push((key, self.resolve(reference), vec![address])),
                }
            }
        }
        found
    }

    fn frames(&self) -> String {
        let mut html = String::new();
        for (heading, action, anchor) in DIRECTIONS {
            let _ = write!(html, r#"<section id="{anchor}"><h2>{heading}</h2>"#);
            for (key, message, sockets) in self.messages(action) {
                html += &self.frame(&format!("{anchor}-{key}"), message, &sockets);
            }
            html += "</section>";
        }
        html
    }

    fn frame(&self, anchor: &str, message: &'a Value, sockets: &[&str]) -> String {
        let name = escape(text(&message["name"]));
        let sockets: Vec<String> =
            sockets.iter().map(|one| format!("<code>{}</code>", escape(one))).collect();
        let mut html = format!(
            r#"<article id="{anchor}"><h3><code>{name}</code></h3><p>{}</p><p class="on">On {}</p>"#,
            prose(text(&message["summary"])),
            sockets.join(" and "),
        );
        html += &self.fields(self.resolve(&message["payload"]));
        for example in message["examples"].as_array().into_iter().flatten() {
            let json = serde_json::to_string_pretty(&example["payload"]).unwrap_or_default();
            // Focusable, so that a keyboard can scroll an example wider than the window.
            let _ = write!(
                html,
                r#"<pre tabindex="0" role="group" aria-label="Example of {name}"><code>{}</code></pre>"#,
                escape(&json)
            );
        }
        html + "</article>"
    }

    /// Renders a table of an object's fields, and its alternatives.
    fn fields(&self, schema: &'a Value) -> String {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let rows = members(&schema["properties"]).map(|(name, field)| {
            let needed = if required.contains(&name) { "always" } else { "may be left out" };
            self.row(name, field, needed)
        });
        let rows: String = rows.collect();
        let mut html = match rows.is_empty() {
            true => String::new(),
            false => table(["Field", "There", "Type", "Meaning"], &rows),
        };
        let forms: Vec<String> = ["anyOf", "oneOf"]
            .iter()
            .flat_map(|keyword| schema[*keyword].as_array().into_iter().flatten())
            .map(|form| self.kind(form))
            .collect();
        if !forms.is_empty() {
            let _ = write!(html, "<p>One of: {}.</p>", forms.join(", "));
        }
        html
    }

    fn row(&self, name: &str, field: &'a Value, there: &str) -> String {
        format!(
            r#"<tr><th scope="row"><code>{}</code></th><td>{there}</td><td>{}</td><td>{}</td></tr>"#,
            escape(name),
            self.kind(field),
            self.meaning(field)
        )
    }

    /// Renders a field's type; named types are links.
    fn kind(&self, field: &Value) -> String {
        if let Some(reference) = field["$ref"].as_str() {
            let name = escape(last_part(reference));
            return format!(r##"<a href="#type-{name}">{name}</a>"##);
        }
        if let Some(one) = field.get("const") {
            return format!("<code>{}</code>", escape(&one.to_string()));
        }
        if let Some(values) = field["enum"].as_array() {
            let values: Vec<String> = values
                .iter()
                .map(|one| format!("<code>{}</code>", escape(&one.to_string())))
                .collect();
            return values.join(" or ");
        }
        if let Some(forms) = field["oneOf"].as_array() {
            return forms.iter().map(|form| self.kind(form)).collect::<Vec<_>>().join(" or ");
        }
        match &field["type"] {
            Value::String(kind) if kind == "array" => {
                format!("array of {}", self.kind(&field["items"]))
            }
            Value::String(kind) => escape(kind),
            Value::Array(kinds) => {
                kinds.iter().map(|kind| escape(text(kind))).collect::<Vec<_>>().join(" or ")
            }
            // AsyncAPI's address parameters have no other type.
            _ => "string".to_owned(),
        }
    }

    /// Renders the description of a field, else of its type, and the bounds.
    fn meaning(&self, field: &'a Value) -> String {
        let target = self.resolve(field);
        let mut parts = Vec::new();
        if let Some(format) = field["format"].as_str() {
            parts.push(format!("Format <code>{}</code>.", escape(format)));
        }
        for (keyword, said) in BOUNDS {
            if let Some(bound) = field.get(keyword) {
                parts.push(format!("{}{} {bound}.", said[..1].to_uppercase(), &said[1..]));
            }
        }
        if let Some(about) = target["description"].as_str() {
            parts.push(prose(about));
        }
        parts.join(" ")
    }

    fn types(&self) -> String {
        let schemas = members(&self.document["components"]["schemas"]);
        let types = schemas.map(|(name, schema)| {
            let name = escape(name);
            let is = match schema["properties"].is_object() {
                true => self.fields(schema),
                false => format!("<p class=\"on\">{}</p>", self.kind(schema)),
            };
            let about = self.meaning(schema);
            format!(r#"<article id="type-{name}"><h3>{name}</h3><p>{about}</p>{is}</article>"#)
        });
        types.collect()
    }

    /// Renders the close codes, each once, because the sockets share them.
    fn close_codes(&self) -> String {
        let mut rows = Vec::new();
        for (_, channel) in members(&self.document["channels"]) {
            for close in channel["x-close-codes"].as_array().into_iter().flatten() {
                let row = format!(
                    r#"<tr><th scope="row">{}</th><td>{}</td></tr>"#,
                    close["code"],
                    prose(text(&close["meaning"]))
                );
                if !rows.contains(&row) {
                    rows.push(row);
                }
            }
        }
        table(["Code", "Meaning"], &rows.concat())
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn last_part(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or_default()
}

/// Renders a table that scrolls if it is wider than the window.
fn table<const COLUMNS: usize>(columns: [&str; COLUMNS], rows: &str) -> String {
    let head = columns.map(|column| format!(r#"<th scope="col">{column}</th>"#)).concat();
    format!("<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
}

/// Renders a description; of Markdown it supports only code in backquotes.
fn prose(markdown: &str) -> String {
    let parts = markdown.split('`').enumerate().map(|(place, part)| match place % 2 {
        0 => escape(part),
        _ => format!("<code>{}</code>", escape(part)),
    });
    parts.collect()
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_the_document_stays_text() {
        let document = serde_json::json!({
            "info": { "title": "<script>", "description": "`<b>` & \"more\"" },
            "components": { "schemas": { "A": { "description": "<img src=x>" } } },
        });
        let page = render(&document);
        for tag in ["<script", "<b>", "<img"] {
            assert!(!page.contains(tag), "{tag} in {page}");
        }
        assert!(page.contains("<code>&lt;b&gt;</code> &amp; &quot;more&quot;"), "{page}");
    }

    #[test]
    fn every_link_within_the_page_leads_somewhere() {
        let document = serde_json::from_str(include_str!("asyncapi.json")).unwrap();
        let page = render(&document);
        let mut links = 0;
        for rest in page.split(r##"href="#"##).skip(1) {
            let target = rest.split('"').next().unwrap_or_default();
            assert_eq!(page.matches(&format!(r#"id="{target}""#)).count(), 1, "#{target}");
            links += 1;
        }
        assert!(links > 60, "{links}");
    }
}
