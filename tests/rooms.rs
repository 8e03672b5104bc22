//! Who may import whom: reads every path named in `src/**` and says which sentence of the house was broken, and where.
//!
//! It reads text, not types: what comes in through a re-export of a permitted room is not seen. Test modules are not read; they
//! may use what they like.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A sentence: files under `rooms` must not name what begins with one of `never`, except files under `but`.
struct Sentence {
    says: &'static str,
    rooms: &'static [&'static str],
    but: &'static [&'static str],
    never: &'static [&'static str],
}

const SENTENCES: [Sentence; 12] = [
    Sentence {
        says: "operators and dataflows never see config, codec, a source, a sink, the shim, tokio or a socket",
        rooms: &["operators", "dataflows"],
        but: &[],
        never: &[
            "crate::config",
            "crate::codec",
            "crate::sources",
            "crate::sinks",
            "crate::shim",
            "crate::worker",
            "crate::commands",
            "crate::telemetry",
            "tokio",
            "std::net",
            "std::fs",
            "std::env",
            "std::process",
        ],
    },
    Sentence {
        says: "operators and dataflows read no clock and draw no random number",
        rooms: &["operators", "dataflows"],
        but: &[],
        never: &["std::time::SystemTime", "std::time::Instant", "SystemTime", "Instant", "rand", "fastrand"],
    },
    Sentence {
        says: "operators and dataflows iterate no hash map whose order differs from run to run: use BTreeMap, or FxHashMap to look up",
        rooms: &["operators", "dataflows"],
        but: &[],
        never: &[
            "std::collections::HashMap",
            "std::collections::HashSet",
            "std::collections::hash_map",
            "std::hash::RandomState",
        ],
    },
    Sentence {
        says: "shim never sees timely, nor what is built with it",
        rooms: &["shim"],
        but: &[],
        never: &["timely", "differential_dataflow", "crate::dataflows", "crate::operators", "crate::worker"],
    },
    Sentence {
        says: "nobody but main, the worker and its feed, shim, telemetry and the commands imports config",
        rooms: &[""],
        but: &["main", "lib", "worker", "feed", "shim", "telemetry", "commands", "config"],
        never: &["crate::config"],
    },
    Sentence { says: "model imports nobody", rooms: &["model"], but: &[], never: &["crate"] },
    Sentence {
        says: "codec is pure: it knows the model and talks to nobody",
        rooms: &["codec"],
        but: &[],
        never: &[
            "crate::sources",
            "crate::sinks",
            "crate::dataflows",
            "crate::shim",
            "tokio",
            "std::net",
            "std::fs",
            "std::time::SystemTime",
        ],
    },
    Sentence {
        says: "state knows the model and itself: no settings, no dataflow, nothing else that talks",
        rooms: &["state"],
        but: &[],
        never: &[
            "timely",
            "differential_dataflow",
            "crate::align",
            "crate::codec",
            "crate::commands",
            "crate::config",
            "crate::dataflows",
            "crate::feed",
            "crate::operators",
            "crate::scoring",
            "crate::shim",
            "crate::sinks",
            "crate::sources",
            "crate::telemetry",
            "crate::worker",
        ],
    },
    Sentence {
        says: "cluster knows the model and itself: no settings, no dataflow, nothing else that talks",
        rooms: &["cluster"],
        but: &[],
        never: &[
            "timely",
            "differential_dataflow",
            "crate::codec",
            "crate::commands",
            "crate::config",
            "crate::dataflows",
            "crate::feed",
            "crate::operators",
            "crate::recovery",
            "crate::scoring",
            "crate::shim",
            "crate::sinks",
            "crate::sources",
            "crate::state",
            "crate::supervisor",
            "crate::telemetry",
            "crate::worker",
        ],
    },
    Sentence {
        says: "supervisor and watch know the model and nobody else: whatever breaks elsewhere, they must not break with it",
        rooms: &["supervisor", "watch"],
        but: &[],
        never: &["crate"],
    },
    Sentence {
        says: "privacy knows the model, the state and what erases; it is told, and asks nobody",
        rooms: &["privacy"],
        but: &[],
        never: &[
            "timely",
            "differential_dataflow",
            "crate::cluster",
            "crate::codec",
            "crate::commands",
            "crate::config",
            "crate::dataflows",
            "crate::feed",
            "crate::operators",
            "crate::recovery",
            "crate::shim",
            "crate::sinks",
            "crate::sources",
            "crate::worker",
            "std::time::SystemTime",
        ],
    },
    Sentence {
        says: "encoders know the model, the runtime of ONNX and their own files; what they make they hand to whom they were given",
        rooms: &["encoders"],
        but: &[],
        never: &[
            "timely",
            "differential_dataflow",
            "crate::codec",
            "crate::commands",
            "crate::config",
            "crate::dataflows",
            "crate::feed",
            "crate::operators",
            "crate::recovery",
            "crate::shim",
            "crate::sinks",
            "crate::sources",
            "crate::state",
            "crate::worker",
        ],
    },
];

#[test]
fn every_room_keeps_to_its_neighbours() {
    let broken: Vec<String> = sources().iter().flat_map(|(path, text)| broken(path, text)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_file_says_what_it_yields() {
    let mut files = sources();
    for folder in ["tests", "benches"] {
        read_all(&root().join(folder), Path::new(folder), &mut files);
    }
    let silent: Vec<&str> = files.iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path.as_str()).collect();
    assert!(silent.is_empty(), "these files must open with a `//!` line: {silent:?}");
}

#[test]
fn a_planted_violation_is_found() {
    for (path, text, sentence) in [
        ("operators/window.rs", "use crate::config::Config;", 0),
        ("operators/window.rs", "use crate::{model::Kind, codec::{self, json}};", 0),
        ("dataflows/ledger.rs", "fn f() { let x = std::fs::read(\"a\"); }", 0),
        ("dataflows/ledger.rs", "pub use std::{\n    net::TcpStream,\n    fmt,\n};", 0),
        ("dataflows/ledger.rs", "use super::super::shim::Params;", 0),
        ("operators/fold.rs", "use std::time::{Duration, Instant};", 1),
        ("operators/fold.rs", "fn f() { let now = std::time::SystemTime::now(); }", 1),
        ("operators/fold.rs", "use std::time as t; fn f() { t::Instant::now(); }", 1),
        ("operators/fold.rs", "use rand::Rng as _;", 1),
        ("dataflows/slates.rs", "use std::collections::{BTreeMap, HashMap as Map};", 2),
        ("dataflows/slates.rs", "use std::collections::*;", 2),
        ("shim/http/feeds.rs", "use timely::progress::Antichain;", 3),
        ("shim/mod.rs", "use crate::dataflows::Params;", 3),
        ("sinks/redis/mod.rs", "fn f(c: &crate::config::Config) {}", 4),
        ("scoring/onnx.rs", "use crate::{model::Item, config};", 4),
        ("model/ids.rs", "use crate::sources::Role;", 5),
        ("codec/json.rs", "use crate::sources::Record;", 6),
        ("state/log.rs", "use crate::sources::Record;", 7),
        ("state/mod.rs", "fn f(now: timely::progress::Antichain<u64>) {}", 7),
        ("cluster/share.rs", "use crate::operators::route::owner;", 8),
        ("watch.rs", "use crate::worker::Engine;", 9),
        ("privacy/mod.rs", "use crate::sinks::writer;", 10),
        ("encoders/thread.rs", "use crate::sources::Appender;", 11),
    ] {
        let found = broken(path, text);
        assert!(found.iter().any(|line| line.contains(SENTENCES[sentence].says)), "{path}: `{text}` gave {found:?}");
        assert!(found.iter().all(|line| line.starts_with(&format!("src/{path} line "))), "{found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_complained_about() {
    for (path, text) in [
        ("operators/window.rs", "use crate::model::time::{Millis, Window};\nuse super::decay;\nuse std::collections::BTreeMap;"),
        (
            "dataflows/slates.rs",
            "use rustc_hash::FxHashMap; // not std::collections::HashMap\n/* tokio::spawn */ use crate::scoring;",
        ),
        ("dataflows/slates.rs", "fn f() { g(\"std::fs::read\", r#\"crate::config::Config\"#, '\"', \"\\\"tokio::\"); }"),
        ("operators/fold.rs", "fn f() {}\n#[cfg(test)]\nmod tests { use std::time::Instant; use crate::config::Config; }"),
        ("model/time.rs", "use crate::model::Kind; pub mod millis { use super::Millis; }"),
        ("commands/doctor/machine.rs", "use crate::config::Config; use std::time::SystemTime;"),
        ("shim/mod.rs", "use crate::config::Config; use crate::sinks::memory::Memory; use std::collections::HashMap;"),
        ("lib.rs", "pub mod config;"),
        ("operators/random.rs", "use crate::operators::tokio_like; fn rand_like() {}"),
    ] {
        assert_eq!(broken(path, text), Vec::<String>::new(), "{path}: `{text}`");
    }
}

#[test]
fn a_complaint_names_the_line_and_what_stands_there() {
    let text =
        "//! Yields.\n\nuse crate::model::Kind;\nuse crate::config::{\n    Config,\n};\n\nfn f() -> crate::codec::Json {}\n";
    let says = SENTENCES[0].says;
    assert_eq!(
        broken("operators/fold.rs", text).into_iter().filter(|line| line.contains(says)).collect::<Vec<_>>(),
        [
            format!("src/operators/fold.rs line 4 names `crate::config::Config`: {says}"),
            format!("src/operators/fold.rs line 8 names `crate::codec::Json`: {says}"),
        ]
    );
}

/// What a file (a path below `src`) says that it must not: one line each.
fn broken(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (line, named) in named_paths(path, text) {
        for Sentence { says, rooms, but, never } in &SENTENCES {
            let here = |rooms: &[&str]| rooms.iter().any(|room| begins(&path.replace(".rs", "").replace('/', "::"), room));
            let own = *never == ["crate"] && begins(&named, "crate::model");
            if here(rooms) && !here(but) && !own && never.iter().any(|never| names(&named, never)) {
                complaints.push(format!("src/{path} line {line} names `{named}`: {says}"));
            }
        }
    }
    complaints
}

/// Whether the path `named` is `prefix` or lies below it; a `*` takes in everything below its parent.
fn names(named: &str, prefix: &str) -> bool {
    begins(named, prefix) || named.strip_suffix("::*").is_some_and(|parent| parent != "crate" && begins(prefix, parent))
}

/// Whether `path` is `prefix` or lies below it.
fn begins(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with("::"))
}

/// Every path a file names outside its tests, absolute where it can be told, with its line. `use` trees are spread out.
fn named_paths(path: &str, text: &str) -> Vec<(usize, String)> {
    let code = without_comments_and_strings(text);
    let code = code.split("#[cfg(test)]\nmod ").next().expect("split yields at least one part");
    let (uses, code) = take_uses(code);
    // `use std::time as t` makes `t::Instant` mean `std::time::Instant`.
    let local: BTreeMap<&str, &str> = uses.iter().map(|(_, full, name)| (name.as_str(), full.as_str())).collect();
    let mut named: Vec<(usize, String)> = uses.iter().map(|(line, full, _)| (*line, full.clone())).collect();
    for (number, line) in code.lines().enumerate() {
        for path in line.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').map(|word| word.trim_matches(':')) {
            let Some((first, rest)) = path.split_once("::") else { continue };
            let full = local.get(first).map_or(path.to_string(), |full| format!("{full}::{rest}"));
            named.push((number + 1, full));
        }
    }
    let module = module_of(path);
    let mut named: Vec<(usize, String)> = named.into_iter().map(|(line, named)| (line, absolute(&module, &named))).collect();
    named.sort();
    named.dedup();
    named
}

/// `crate::shim::http` for `shim/http/mod.rs`.
fn module_of(path: &str) -> Vec<String> {
    let mut module: Vec<String> = path.trim_end_matches(".rs").split('/').map(String::from).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// A path without `super` and `self`.
fn absolute(module: &[String], named: &str) -> String {
    let mut above = module.to_vec();
    let mut rest = named;
    while let Some((first, below)) = rest.split_once("::") {
        match first {
            "super" => _ = above.pop(),
            "self" => {}
            _ => break,
        }
        rest = below;
    }
    if rest == named { named.to_string() } else { format!("crate::{}::{rest}", above.join("::")).replace("crate::::", "crate::") }
}

/// Every `use` of a file as (line, full path, name it has here), and the code without them.
fn take_uses(code: &str) -> (Vec<(usize, String, String)>, String) {
    let (mut uses, mut left) = (Vec::new(), String::with_capacity(code.len()));
    for (number, statement) in code.split_inclusive(';').scan(1, |line, statement| {
        let at = *line;
        *line += statement.matches('\n').count();
        Some((at, statement))
    }) {
        let from = statement.rfind("use ").filter(|at| !statement[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        let Some(from) = from.filter(|_| statement.ends_with(';')) else {
            left.push_str(statement);
            continue;
        };
        let (before, tree) = statement.split_at(from);
        spread("", &tree["use ".len()..tree.len() - 1], number + before.matches('\n').count(), &mut uses);
        left.push_str(before);
        left.extend(tree.chars().filter(|c| *c == '\n'));
    }
    (uses, left)
}

/// Spreads `a::{b, c::{self, d as e}}` into its paths.
fn spread(above: &str, tree: &str, line: usize, uses: &mut Vec<(usize, String, String)>) {
    let tree = tree.trim();
    if let Some((head, branches)) = tree.split_once('{') {
        let above = format!("{above}{}", head.trim());
        let inner = branches.rsplit_once('}').map_or(branches, |(inner, _)| inner);
        let mut depth = 0;
        let branches = inner.split(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        });
        branches.filter(|branch| !branch.trim().is_empty()).for_each(|branch| spread(&above, branch, line, uses));
        return;
    }
    let (path, name) = tree.split_once(" as ").map_or((tree, None), |(path, name)| (path.trim(), Some(name.trim())));
    let full = format!("{above}{path}");
    let full = full.strip_suffix("::self").unwrap_or(&full).to_string();
    let name = name.unwrap_or_else(|| full.rsplit("::").next().expect("rsplit yields at least one part")).to_string();
    uses.push((line, full, name));
}

/// The code with every comment and literal blanked out; lines stay where they are.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = literal_or_comment(rest, code.chars().next_back());
        if length > 0 {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

/// How many bytes of a comment or literal `rest` begins with; 0 when it begins with code.
fn literal_or_comment(rest: &str, before: Option<char>) -> usize {
    let ends = |from: usize, with: &str| rest[from..].find(with).map_or(rest.len(), |at| from + at + with.len());
    let inside_a_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let raw = rest.strip_prefix('r').filter(|_| !inside_a_word).map(|r| r.len() - r.trim_start_matches('#').len());
    match raw {
        _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
        _ if rest.starts_with("/*") => ends(2, "*/"),
        Some(hashes) if rest[1 + hashes..].starts_with('"') => ends(2 + hashes, &format!("\"{}", "#".repeat(hashes))),
        _ if rest.starts_with('"') => quoted(rest),
        // A character, not a lifetime: a backslash follows, or the quote closes after one character.
        _ if rest.starts_with("'\\") => ends(3, "'"),
        _ if rest.starts_with('\'') => rest.char_indices().nth(2).filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        _ => 0,
    }
}

/// The length of a string literal with its quotes.
fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if c == '"' && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    rest.len()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of `src`, by its path below it.
fn sources() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    read_all(&root().join("src"), Path::new(""), &mut files);
    assert!(files.contains_key("main.rs") && files.contains_key("model/mod.rs"), "src is read from the right place");
    files
}

fn read_all(folder: &Path, shown: &Path, files: &mut BTreeMap<String, String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder that can be listed").path();
        let shown = shown.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            read_all(&path, &shown, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file is UTF-8");
            files.insert(shown.to_string_lossy().replace('\\', "/"), text);
        }
    }
}
