//! A page that shows a measurement: its figures, how they lie along the stream or among users, and where the hits came from. One file,
//! no script, nothing loaded from elsewhere. Pure.

use serde_json::Value;
use std::fmt::Write as _;

/// The page of one run, from the object that `--json` prints.
pub fn page(run: &Value) -> String {
    let mut page = String::from(HEAD);
    let text = |key: &str| escaped(run[key].as_str().unwrap_or_default());
    let _infallible = writeln!(page, "<h1>{} · {} · {}</h1>", text("data"), text("protocol"), text("by"));
    let _infallible = writeln!(page, "<table>{}</table>", figures(run));
    for (title, values) in plots(run).into_iter().filter(|(_, values)| !values.is_empty()) {
        let _infallible = writeln!(page, "<h2>{title}</h2>\n{}", bars(&values));
    }
    page.push_str("</body></html>\n");
    page
}

/// A title and what stands under it: nothing where the protocol does not measure it.
type Plot = (&'static str, Vec<(String, f64)>);

fn plots(run: &Value) -> [Plot; 4] {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let list = |of: &'static str, key: &str| run[of][key].as_array().into_iter().flatten();
    let along = |of| list(of, "deciles_hr10").enumerate().map(|(i, x)| (format!("{}0 %", i + 3), number(x))).collect();
    let by_taken =
        list("reported", "ndcg100_by_taken").map(|of| (of[0].as_str().unwrap_or_default().to_string(), number(&of[1])));
    let sources = run["hits_by_source"].as_object().into_iter().flatten().map(|(source, share)| (source.clone(), number(share)));
    [
        ("HR@10 along the stream", along("reported")),
        ("HR@10 of the other along the stream", along("against")),
        ("NDCG@100 by how many items users had taken", by_taken.collect()),
        ("Sources that had the hit among their candidates", sources.collect()),
    ]
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
