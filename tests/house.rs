//! The house around the code: image, compose stack, dashboards and scripts say only what the code knows. No container engine is
//! needed, so what an image does when it runs is not seen here.

use clap::Parser;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use overdrive::commands::Cli;
use overdrive::config::{Config, Layers};
use overdrive::model::serving::Recipe;
use overdrive::telemetry::METRICS;
use overdrive::training::towers;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A service of the compose file. What it does not know here it does not need.
fn services() -> Map<String, Value> {
    compose()["services"].as_object().expect("services").clone()
}

/// The compose file with its `<<` merged as Compose does.
fn compose() -> Value {
    let mut file: Value = serde_saphyr::from_str(&read("docker-compose.yml")).expect("docker-compose.yml is YAML");
    for service in file["services"].as_object_mut().expect("services").values_mut() {
        let service = service.as_object_mut().expect("a service");
        if let Some(Value::Object(shared)) = service.remove("<<") {
            shared.into_iter().for_each(|(key, value)| _ = service.entry(key).or_insert(value));
        }
    }
    file
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|text| text.as_str().expect("text").to_string()).collect()
}

fn environment(service: &Value) -> Vec<(String, String)> {
    let variables = service["environment"].as_object().expect("an environment");
    variables.iter().map(|(name, value)| (name.clone(), value.as_str().expect("quoted").to_string())).collect()
}

/// Arguments as the command line takes them.
fn arguments(list: &[String]) -> Cli {
    let line = ["overdrive".to_string()].into_iter().chain(list.iter().cloned());
    Cli::try_parse_from(line).unwrap_or_else(|e| panic!("`overdrive {}` is refused: {e}", list.join(" ")))
}

/// A tag or digest that does not move to another major version by itself.
fn is_pinned(image: &str) -> bool {
    let number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u32>().is_ok());
    image
        .split_once(':')
        .map(|(_, tag)| tag.split(['.', '-']))
        .is_some_and(|mut parts| number(parts.next()) && number(parts.next()))
}

#[test]
fn the_stack_is_kafka_redis_engine_and_shim() {
    let services = services();
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["kafka", "redis", "engine", "shim"]));
    let volumes: BTreeSet<String> = compose()["volumes"].as_object().expect("volumes").keys().cloned().collect();
    let mut mounted = BTreeSet::new();
    for (name, service) in &services {
        assert!(is_pinned(service["image"].as_str().expect("an image")), "{name}: {}", service["image"]);
        assert!(service["healthcheck"]["test"].is_array(), "{name} has no health check");
        for port in texts(&service["ports"]) {
            let published = port.rsplit_once(':').expect("host:container").0;
            assert!(
                published.parse::<SocketAddr>().is_ok_and(|at| at.ip().is_loopback()),
                "{name} publishes {port} to strangers"
            );
        }
        mounted.extend(texts(&service["volumes"]).iter().map(|mount| mount.split_once(':').expect("volume:path").0.to_string()));
        for (needed, condition) in service.get("depends_on").and_then(Value::as_object).into_iter().flatten() {
            assert!(services.contains_key(needed), "{name} depends on {needed}");
            assert_eq!(condition["condition"], "service_healthy");
        }
    }
    assert_eq!(mounted, volumes, "every volume is declared and used");
}

#[test]
fn an_image_is_pinned_by_two_numbers() {
    assert!(["redis:7.4.2-bookworm", "apache/kafka:3.9.1", "debian:12.11-slim"].iter().all(|image| is_pinned(image)));
    assert!(!["redis", "redis:latest", "redis:7", "debian:bookworm-slim", "redis:7-alpine"].iter().any(|image| is_pinned(image)));
}

#[test]
fn our_services_are_configured_with_what_the_code_knows() {
    let services = services();
    let nothing = tempfile::NamedTempFile::new().expect("an empty file");
    for (name, command) in [("engine", "run"), ("shim", "serve")] {
        let service = &services[name];
        assert_eq!(texts(&service["command"]), [command]);
        assert_eq!(service["image"], concat!("overdrive:", env!("CARGO_PKG_VERSION")));
        arguments(&texts(&service["command"]));
        let layers = Layers::read(Some(nothing.path()), environment(service).into_iter());
        let config = layers.and_then(|layers| layers.config()).unwrap_or_else(|e| panic!("{name}: {e}"));

        let (broker, port) = config.kafka.brokers.split_once(':').expect("host:port");
        assert!(services.contains_key(broker), "{name}: no service is called {broker}");
        let advertised = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str().expect("listeners");
        assert!(advertised.contains(&format!("://{broker}:{port}")), "{name}: Kafka does not advertise {broker}:{port}");
        assert!(config.redis.url.starts_with("redis://redis:6379"), "{name}: {}", config.redis.url);

        let test = texts(&service["healthcheck"]["test"]);
        assert_eq!(test[..2], ["CMD", "overdrive"]);
        arguments(&test[2..]);
        let asked = test.last().expect("an address");
        let (port, path) = if name == "engine" { (config.metrics.port, "metrics") } else { (config.service.port, "livez") };
        assert_eq!(*asked, format!("127.0.0.1:{port}/{path}"), "{name}");
        let grpc = (name == "shim" && config.service.grpc).then_some(config.service.grpc_port);
        let published = std::iter::once(port).chain(grpc).map(|port| format!("127.0.0.1:{port}:{port}"));
        assert_eq!(texts(&service["ports"]), published.collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn engine_and_shim_agree_on_where_things_are() {
    let services = services();
    let of = |name: &str| {
        let config = Config::load(Some(Path::new("overdrive.toml")), environment(&services[name]).into_iter()).expect("accepted");
        (config.source, config.kafka, config.store, config.redis)
    };
    assert_eq!(of("engine"), of("shim"));
}

/// The instructions of the Dockerfile, continuation lines joined: (instruction, the rest).
fn dockerfile() -> Vec<(String, String)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').expect("an instruction and its arguments"))
        .map(|(i, r)| (i.into(), r.trim().into()))
        .collect()
}

fn exec_form(of: &str) -> Vec<String> {
    let list = &of[of.find('[').unwrap_or_else(|| panic!("`{of}` must be a list: a shell would swallow signals"))..];
    serde_json::from_str(list).unwrap_or_else(|e| panic!("`{list}`: {e}"))
}

#[test]
fn the_image_is_built_in_stages_and_runs_as_nobody_special() {
    let lines = dockerfile();
    let all = |name: &str| lines.iter().filter(|(i, _)| i == name).map(|(_, rest)| rest.as_str()).collect::<Vec<_>>();
    let last = |name: &str| all(name).last().unwrap_or_else(|| panic!("no {name}")).to_string();
    let mut stages = BTreeSet::new();
    for (instruction, rest) in &lines {
        match instruction.as_str() {
            "FROM" => {
                let (image, stage) = rest.split_once(" AS ").expect("every stage has a name");
                assert!(is_pinned(image), "{image}");
                stages.insert(stage.to_string());
            }
            "COPY" => match rest.strip_prefix("--from=") {
                Some(rest) => {
                    assert!(stages.contains(rest.split(' ').next().expect("a stage")), "COPY {rest}: no such stage before it")
                }
                None => copied_exist(rest),
            },
            "RUN" | "ENV" | "WORKDIR" | "USER" | "VOLUME" | "EXPOSE" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD" => {}
            other => panic!("{other} {rest}: what is it for?"),
        }
    }
    assert_eq!(stages.len(), 2);
    let user = last("USER");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "USER {user} must be numbers, not root");
    assert!(lines.iter().position(|(i, _)| i == "USER") < lines.iter().position(|(i, _)| i == "ENTRYPOINT"));
    assert_eq!(exec_form(&last("ENTRYPOINT")), ["overdrive"]);
    arguments(&exec_form(&last("CMD")));
    let health = exec_form(&last("HEALTHCHECK"));
    assert_eq!(health[0], "overdrive");
    arguments(&health[1..]);
    let pairs = all("ENV").join(" ");
    let env = pairs.split_whitespace().map(|pair| pair.split_once('=').expect("NAME=value"));
    let env = env.map(|(name, value)| (name.to_string(), value.to_string()));
    let config = Config::load(Some(Path::new("overdrive.toml")), env).expect("the image's environment is accepted");
    assert!(config.engine.state_dir.is_absolute() && all("VOLUME").contains(&config.engine.state_dir.to_str().expect("plain")));
    assert_eq!(last("EXPOSE"), format!("{} {}", config.service.port, config.service.grpc_port));
}

fn copied_exist(rest: &str) {
    let mut sources: Vec<&str> = rest.split_whitespace().collect();
    sources.pop().expect("a destination");
    let sent: Vec<String> = read(".dockerignore").lines().filter_map(|line| line.strip_prefix('!').map(String::from)).collect();
    for source in sources {
        assert!(root().join(source).exists(), "COPY {source}: not in the repository");
        assert!(sent.iter().any(|sent| sent == source), "COPY {source}: .dockerignore keeps it from the builder");
    }
}

#[test]
fn the_builder_gets_every_file_the_code_embeds() {
    let copies: Vec<String> = dockerfile().into_iter().filter(|(i, _)| i == "COPY").map(|(_, rest)| rest).collect();
    let copied = |top: &str| copies.iter().any(|rest| rest.split_whitespace().any(|source| source == top));
    let mut embedded = 0;
    each_source(&root().join("src"), &mut |path, text| {
        let code = text.split("#[cfg(test)]").next().expect("split yields at least one part");
        for rest in code.split("include_str!(\"").chain(code.split("include_bytes!(\"")).filter(|part| part.starts_with("../")) {
            let named = path.parent().expect("below src").join(rest.split('"').next().expect("a literal"));
            let file = named.canonicalize().unwrap_or_else(|e| panic!("{}: {e}", named.display()));
            let root = root().canonicalize().expect("the repository");
            let below = file.strip_prefix(root).expect("inside the repository").iter().next().expect("a name").to_string_lossy();
            assert!(copied(&below), "{} embeds {below}, which the Dockerfile does not copy", path.display());
            embedded += 1;
        }
    });
    assert!(embedded > 0, "overdrive.toml at least is embedded");
    let manifest: toml::Table = read("Cargo.toml").parse().expect("Cargo.toml");
    for (section, folder) in [("bench", "benches"), ("test", "tests"), ("example", "examples")] {
        assert!(
            !manifest.contains_key(section) || copied(folder),
            "[[{section}]] is declared: cargo wants {folder} in the image"
        );
    }
}

fn each_source(folder: &Path, see: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            each_source(&path, see);
        } else if path.extension().is_some_and(|end| end == "rs") {
            see(&path, &std::fs::read_to_string(&path).expect("UTF-8"));
        }
    }
}

/// The code words of refusals in a source: what stands where one is given.
fn codes(text: &str) -> BTreeSet<&str> {
    let given = |before: &str| {
        let before = before.trim_end();
        let status = before.rsplit_once("StatusCode::").is_some_and(|(_, rest)| {
            rest.strip_suffix(',').is_some_and(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        });
        status || ["::bad(", "unknown(", "parse_name(", "STORE: &str ="].iter().any(|way| before.ends_with(way))
    };
    let code = text.split("#[cfg(test)]").next().expect("split yields at least one part");
    let parts: Vec<&str> = code.split('"').collect();
    let word = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let literal = |at: usize| Some(parts[at]).filter(word);
    (1..parts.len()).filter(|at| given(parts[at - 1])).filter_map(literal).collect()
}

#[test]
fn every_refusal_is_in_the_document_of_its_protocol() {
    let documents = [("grpc", read("schemas/service.proto")), ("", read("schemas/openapi.json"))];
    let mut seen = BTreeSet::new();
    each_source(&root().join("src/shim"), &mut |path, text| {
        let folder = path.strip_prefix(root().join("src/shim")).expect("below it");
        let (_, document) = documents.iter().find(|(of, _)| folder.starts_with(of)).expect("the last is of all");
        for code in codes(text) {
            let words = document.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            assert!(
                words.into_iter().any(|word| word == code),
                "{} refuses with {code}, which no document names",
                path.display()
            );
            seen.insert(code.to_string());
        }
    });
    let some =
        ["bad_id", "bad_language", "unauthorized", "too_many_requests", "store_unavailable", "unknown_item", "bad_message"];
    assert!(
        some.iter().all(|code| seen.contains(*code)) && seen.len() >= 40,
        "how refusals are made is not known here: {seen:?}"
    );
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist_and_forgets_none() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let asked: String =
        panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets")).map(|t| t["expr"].to_string()).collect();
    let words = asked.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("overdrive_"));
    let asked: BTreeSet<&str> = words.map(|word| word.trim_end_matches("_bucket")).collect();
    let known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.0).collect();
    assert_eq!(asked, known);
    let ids: BTreeMap<u64, &Value> = panels.iter().map(|panel| (panel["id"].as_u64().expect("an id"), panel)).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
}

#[test]
fn prometheus_scrapes_the_ports_the_stack_publishes() {
    let scrape: Value = serde_saphyr::from_str(&read("deploy/prometheus.yml")).expect("YAML");
    let jobs = scrape["scrape_configs"].as_array().expect("jobs");
    let targets: BTreeSet<String> = jobs.iter().flat_map(|job| texts(&job["static_configs"][0]["targets"])).collect();
    let services = services();
    let published =
        ["engine", "shim"].map(|name| texts(&services[name]["ports"])[0].rsplit_once(':').expect("host:port").0.to_string());
    assert_eq!(targets, BTreeSet::from(published));
}

#[test]
fn every_script_can_be_run_and_read_by_its_shell() {
    let mut scripts = vec![root().join(".ci/run")];
    for entry in std::fs::read_dir(root().join("scripts")).expect("scripts") {
        let path = entry.expect("an entry").path();
        scripts.extend(path.extension().is_some_and(|end| end == "sh").then_some(path));
    }
    assert!(scripts.len() >= 3);
    for path in scripts {
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        let shell = if text.starts_with("#!/bin/sh\n") { "sh" } else { "bash" };
        assert!(shell == "sh" || text.starts_with("#!/usr/bin/env bash\n"), "{}: which shell?", path.display());
        assert!(text.contains("\nset -eu"), "{}: an error must end it", path.display());
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{} is not executable", path.display());
        let checked = Command::new(shell).arg("-n").arg(&path).status().expect("a shell");
        assert!(checked.success(), "{}", path.display());
    }
}

#[test]
fn make_lists_every_target_it_has() {
    let makefile = read("Makefile");
    let phony: BTreeSet<&str> =
        makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).expect("targets are not files").split(' ').collect();
    let help = Command::new("make").arg("-s").current_dir(root()).env_remove("MAKEFLAGS").output().expect("make is installed");
    let shown = String::from_utf8(help.stdout).expect("UTF-8");
    let listed: BTreeSet<&str> = shown.lines().map(|line| line.split_whitespace().nth(1).expect("make <target>")).collect();
    assert_eq!(listed, phony);
    let scripts: Vec<&str> = makefile.split_whitespace().filter(|word| word.starts_with("scripts/")).collect();
    for script in scripts {
        let script = script.trim_end_matches([')', '"', ';']);
        assert!(root().join(script).exists(), "the Makefile runs {script}");
    }
}

#[test]
fn every_file_of_training_is_carried_by_the_program_and_every_recipe_has_its_own() {
    let folder = std::fs::read_dir(root().join("training")).expect("the folder of training");
    let names = folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"));
    let there: BTreeSet<String> = names.filter(|name| name.ends_with(".py")).collect();
    let carries = read("src/training/script.rs");
    let carried = carries.split("include_str!(\"../../training/").skip(1).filter_map(|rest| rest.split('"').next());
    assert_eq!(carried.map(str::to_string).collect::<BTreeSet<_>>(), there);
    let recipes: Vec<_> = Recipe::ALL.map(Recipe::name).to_vec();
    assert!(recipes.iter().all(|recipe| there.contains(&format!("{recipe}.py"))), "{recipes:?} of {there:?}");
    let towers: Vec<_> = towers::Recipe::ALL.map(towers::Recipe::name).to_vec();
    assert!(towers.iter().all(|recipe| there.contains(&format!("{recipe}.py"))), "{towers:?} of {there:?}");
    for (names, recipes) in [("RECIPES", &recipes), ("TOWERS", &towers)] {
        assert!(read("training/train.py").contains(&format!("{names} = {recipes:?}")), "train.py names {recipes:?}");
    }
    let listed = [
        "schemas/events.proto",
        "schemas/service.proto",
        "schemas/control.schema.json",
        "schemas/openapi.json",
        "overdrive.toml",
    ];
    for file in listed.map(|file| (file, read(file))) {
        let missing: Vec<_> = recipes.iter().filter(|recipe| !file.1.contains(**recipe)).collect();
        assert!(missing.is_empty(), "{} does not name {missing:?}", file.0);
    }
}
