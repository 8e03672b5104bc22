//! Pages for people: the console, and the API page made from the OpenAPI document. All of it is in the binary, and none of it
//! may load anything from elsewhere: the policy header says so.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::fmt::Write;
use std::sync::LazyLock;

/// The description of every route, as published.
pub const OPENAPI: &str = include_str!("../../../schemas/openapi.json");

const INDEX: &str = include_str!("../console/index.html");
const CSS: &str = include_str!("../console/console.css");
const JS: &str = include_str!("../console/console.js");

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub async fn index() -> Response {
    page("text/html; charset=utf-8", INDEX)
}

pub async fn css() -> Response {
    page("text/css; charset=utf-8", CSS)
}

pub async fn js() -> Response {
    page("text/javascript; charset=utf-8", JS)
}

pub async fn openapi() -> Response {
    page("application/json", OPENAPI)
}

pub async fn docs() -> Response {
    static DOCS: LazyLock<String> = LazyLock::new(|| {
        let document = serde_json::from_str(OPENAPI).expect("a test reads the document");
        render(&document)
    });
    page("text/html; charset=utf-8", &DOCS)
}

fn page(media: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

/// The API page: one fold-out an operation, grouped by tag in the document's order.
fn render(document: &Value) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>Overdrive API</title><link rel=\"icon\" href=\"data:,\">\
         <link rel=\"stylesheet\" href=\"/console.css\"></head><body><header class=\"top\"><h1>Overdrive API</h1>\
         <nav aria-label=\"Pages\"><a href=\"/\">Console</a><a href=\"/openapi.json\">OpenAPI</a></nav></header>\
         <main class=\"doc\">",
    );
    put(&mut page, format_args!("<p>{}</p>", escaped(&document["info"]["description"])));
    for tag in document["tags"].as_array().into_iter().flatten() {
        put(&mut page, format_args!("<h2>{}</h2><p class=\"note\">{}</p>", escaped(&tag["name"]), escaped(&tag["description"])));
        for (path, verb, operation) in operations(document).filter(|(_, _, operation)| operation["tags"][0] == tag["name"]) {
            render_operation(&mut page, document, path, verb, operation);
        }
    }
    page.push_str("</main></body></html>");
    page
}

/// Path, method and description of every operation of an OpenAPI document.
pub fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, verbs)| {
        let verbs = verbs.as_object().into_iter().flatten();
        verbs.map(move |(verb, operation)| (path.as_str(), verb.as_str(), operation))
    })
}

fn render_operation(page: &mut String, document: &Value, path: &str, verb: &str, operation: &Value) {
    let summary = escaped(&operation["summary"]);
    put(page, format_args!("<details><summary><span class=\"verb {verb}\">{verb}</span><code>{}</code>", escape(path)));
    put(page, format_args!("<span>{summary}</span></summary><div class=\"body\">"));
    if let Some(text) = operation["description"].as_str() {
        put(page, format_args!("<p>{}</p>", escape(text)));
    }
    let parameters = operation["parameters"].as_array().into_iter().flatten().map(|p| resolved(document, p));
    let rows: String =
        parameters.map(|p| cells(&p["name"], &format!("{}: {}", text(&p["in"]), text(&p["description"])))).collect();
    if !rows.is_empty() {
        put(page, format_args!("<table>{rows}</table>"));
    }
    for (media, content) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        put(page, format_args!("<p class=\"note\">Body, {}</p>", escape(media)));
        render_example(page, &content["example"]);
    }
    let answers = operation["responses"].as_object().into_iter().flatten();
    let rows: String = answers
        .clone()
        .map(|(status, answer)| cells(&Value::from(status.as_str()), text(&resolved(document, answer)["description"])))
        .collect();
    put(page, format_args!("<table>{rows}</table>"));
    for (_, answer) in answers {
        render_example(page, &answer["content"]["application/json"]["example"]);
    }
    page.push_str("</div></details>");
}

fn render_example(page: &mut String, example: &Value) {
    let pretty = match example {
        Value::Null => return,
        Value::String(lines) => lines.clone(),
        other => serde_json::to_string_pretty(other).expect("it was JSON"),
    };
    put(page, format_args!("<pre>{}</pre>", escape(&pretty)));
}

fn cells(head: &Value, rest: &str) -> String {
    format!("<tr><td><code>{}</code></td><td>{}</td></tr>", escaped(head), escape(rest))
}

/// What a `$ref` stands for, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let pointer = value["$ref"].as_str().and_then(|to| to.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(value)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn escaped(value: &Value) -> String {
    escape(text(value))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn put(page: &mut String, text: std::fmt::Arguments) {
    page.write_fmt(text).expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::served;

    fn document() -> Value {
        serde_json::from_str(OPENAPI).expect("schemas/openapi.json is JSON")
    }

    #[test]
    fn the_document_lists_exactly_what_is_served() {
        let document = document();
        let mut listed: Vec<_> = operations(&document).map(|(path, verb, _)| (verb, path)).collect();
        let mut served = served();
        listed.sort_unstable();
        served.sort_unstable();
        assert_eq!(listed, served);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_is_on_the_page() {
        fn check(document: &Value, value: &Value) {
            if let Some(to) = value["$ref"].as_str() {
                assert!(document.pointer(&to[1..]).is_some(), "{to} leads nowhere");
            }
            value.as_object().into_iter().flatten().for_each(|(_, inner)| check(document, inner));
            value.as_array().into_iter().flatten().for_each(|inner| check(document, inner));
        }
        let document = document();
        check(&document, &document);
        let page = render(&document);
        assert_eq!(page.matches("<details>").count(), served().len());
        assert!(!page.contains("://"), "the page names no other host");
    }
}
