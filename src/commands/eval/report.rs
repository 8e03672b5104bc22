//! A page that shows a measurement: its figures, HR@10 along the stream, and where the hits came from. One file, no script, nothing
//! loaded from elsewhere. Pure.

use serde_json::Value;
use std::fmt::Write as _;

/// The page of one run, from the object that `--json` prints.
pub fn page(run: &Value) -> String {
    let mut page = String::from(HEAD);
    let text = |key: &str| escaped(run[key].as_str().unwrap_or_default());
    let _infallible = writeln!(page, "<h1>{} · {} · {}</h1>", text("data"), text("protocol"), text("by"));
    let _infallible = writeln!(page, "<table>{}</table>", figures(run));
    let deciles = run["reported"]["deciles_hr10"].as_array().cloned().unwrap_or_default();
    let along = deciles.iter().enumerate().map(|(i, x)| (format!("{}0 %", i + 3), x.as_f64().unwrap_or(0.0)));
    let _infallible = writeln!(page, "<h2>HR@10 along the stream</h2>\n{}", bars(&along.collect::<Vec<_>>()));
    let sources = run["hits_by_source"].as_object().cloned().unwrap_or_default();
    let of = sources.iter().map(|(source, share)| (source.clone(), share.as_f64().unwrap_or(0.0)));
    let _infallible =
        writeln!(page, "<h2>Sources that had the hit among their candidates</h2>\n{}", bars(&of.collect::<Vec<_>>()));
    page.push_str("</body></html>\n");
    page
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>overdrive eval</title><style>\
body{font:15px system-ui;margin:2em auto;max-width:48em}table{border-collapse:collapse}td{padding:.2em 1em .2em 0}\
.bar{background:#3b6ea5;height:1em}.row{display:grid;grid-template-columns:8em 1fr 5em;gap:.5em;align-items:center}\
</style></head><body>\n";

fn figures(run: &Value) -> String {
    let mut rows = String::new();
    let mut row = |key: &str, value: &Value| {
        if value.is_number() || value.is_boolean() {
            let _infallible = write!(rows, "<tr><td>{}</td><td>{value}</td></tr>", escaped(key));
        }
    };
    run.as_object().into_iter().flatten().for_each(|(key, value)| row(key, value));
    run["reported"].as_object().into_iter().flatten().for_each(|(key, value)| row(key, value));
    rows
}

/// A bar for each value, the longest as long as the page is wide.
fn bars(values: &[(String, f64)]) -> String {
    let most = values.iter().map(|(_, x)| *x).fold(f64::MIN_POSITIVE, f64::max);
    let bar = |(name, x): &(String, f64)| {
        let width = x / most * 100.0;
        let name = escaped(name);
        format!("<div class=row><span>{name}</span><div class=bar style=\"width:{width:.1}%\"></div><span>{x:.4}</span></div>\n")
    };
    values.iter().map(bar).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
