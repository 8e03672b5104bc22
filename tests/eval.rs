//! `overdrive eval` as people run it, on made-up streams: its ranks for any number of workers, its rankings by one source against a
//! plain recount. Figures on recorded data are in `decisions/`.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// User, item and minute of each event, drawn so that some items are taken far more often, and some again.
fn events(count: u64) -> Vec<(u64, u64, i64)> {
    let mut state = 7u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    (0..count).map(|n| (draw(40), draw(8) * draw(12), n as i64)).collect()
}

fn write(folder: &Path, events: &[(u64, u64, i64)]) {
    let line = |(user, item, minute): &(u64, u64, i64)| {
        let ts = 1_700_000_000_000 / 60_000 * 60_000 + minute * 60_000;
        json!({"type": "view", "user_id": format!("u{user}"), "item_id": format!("i{item}"), "ts": ts}).to_string()
    };
    let lines: Vec<String> = events.iter().map(line).collect();
    std::fs::write(folder.join("events.jsonl"), lines.join("\n") + "\n").expect("writable");
    let item =
        |n: u64| json!({"item_id": format!("i{n}"), "categories": [format!("c{}", n % 5)], "title": format!("Tale {}", n % 7)});
    let lines: Vec<String> = (0..80).map(|n| item(n).to_string()).collect();
    std::fs::write(folder.join("items.jsonl"), lines.join("\n") + "\n").expect("writable");
}

/// Runs it; yields what it says and the ranks it writes.
fn eval(folder: &Path, more: &[&str]) -> (Value, String) {
    let ranks = folder.join("ranks.csv");
    let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
    command
        .current_dir(folder)
        .args(["eval", "prequential", "--json", "--data"])
        .arg(folder)
        .arg("--ranks")
        .arg(&ranks)
        .args(more);
    let output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = serde_json::from_slice(&output.stdout).expect("one object");
    (said, std::fs::read_to_string(ranks).expect("the ranks"))
}

/// Ranks by how often items were taken, by definition: row, rank, and whether the item was new.
fn by_count(events: &[(u64, u64, i64)]) -> String {
    let (mut counts, mut first, mut own) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut text = String::from("row,rank,new_item\n");
    for (row, (user, item, _)) in events.iter().enumerate() {
        if !own.contains(&(*user, *item)) && row >= events.len() / 10 {
            let value = |i: &u64| (std::cmp::Reverse(counts[i]), first[i]);
            let better =
                counts.keys().filter(|i| !own.contains(&(*user, **i)) && counts.contains_key(item) && value(i) < value(item));
            let rank = if counts.contains_key(item) { (better.count() + 1).to_string() } else { String::new() };
            text += &format!("{row},{rank},{}\n", u8::from(!counts.contains_key(item)));
        }
        first.entry(*item).or_insert(row);
        *counts.entry(*item).or_insert(0u32) += 1;
        own.insert((*user, *item));
    }
    text
}

#[test]
fn ranks_by_popularity_alone_are_those_of_a_recount() {
    let folder = tempfile::tempdir().expect("a folder");
    let events = events(1_500);
    write(folder.path(), &events);
    let (said, ranks) = eval(folder.path(), &["--by", "popularity:8"]);
    assert_eq!(ranks, by_count(&events));
    assert_eq!((&said["rows"], &said["lag_ms"]), (&json!(1_500), &json!(0)));
}

#[test]
fn the_blend_ranks_the_same_for_any_number_of_workers_and_a_lag_only_makes_it_later() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), &events(900));
    let (said, ranks) = eval(folder.path(), &[]);
    for workers in ["2", "4"] {
        assert!(eval(folder.path(), &["--workers", workers]).1 == ranks, "{workers} workers");
    }
    assert!(said["reported"]["tested"].as_u64() > Some(50) && said["reported"]["hr100"].as_f64() > Some(0.5), "{said}");
    let (late, _) = eval(folder.path(), &["--lag", "5m"]);
    assert_eq!(late["reported"]["tested"], said["reported"]["tested"]);
    assert!(late["reported"] != said["reported"], "the last five minutes are unheard of");
    let html = folder.path().join("page.html");
    let _ranked = eval(folder.path(), &["--bare", "--html", html.to_str().expect("UTF-8")]);
    let page = std::fs::read_to_string(html).expect("the page");
    assert!(page.contains("HR@10 along the stream") && page.ends_with("</body></html>\n"));
}

#[test]
fn what_cannot_be_measured_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
        let output = command.current_dir(folder.path()).args(["eval", "prequential", "--data", "nowhere"]).args(more).output();
        let output = output.expect("the binary runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&[]).contains("nowhere"), "{}", said(&[]));
    assert!(said(&["--by", "luck"]).contains("write blend, factors, popularity:4 or nearness:4"));
}
