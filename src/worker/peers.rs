//! A process among others: what it says of itself, what of the state it gets, and one that follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use timely::communication::WorkerGuards;

use super::StartError;
use super::crew::{self, Common};
use super::failstop;
use crate::cluster::{self, ClusterError, Member, Sockets};
use crate::config::Config;
use crate::dataflows;
use crate::model::ids::KEY_GROUPS;
use crate::model::{Part, Saved};
use crate::operators::route::owner;
use crate::registry;
use crate::watch::Progress;

/// What operators kept, by uid.
pub type Restored = BTreeMap<String, Vec<Saved>>;

/// The connections of process 0 to the others, which have got their shares of the state; `None`: there are no others.
pub fn lead(
    config: &Config,
    params: &dataflows::Params,
    generation: u32,
    restored: &Restored,
) -> Result<Option<(usize, Sockets)>, ClusterError> {
    let cluster = &config.cluster;
    if cluster.processes == 1 {
        return Ok(None);
    }
    let me = Member { generation: Some(generation), ..member(config, params)? };
    let workers = config.engine.workers;
    let sockets = cluster::lead(cluster, &me, |process| share(restored, process, workers, cluster.processes * workers))?;
    tracing::info!(processes = cluster.processes, workers, generation, "the cluster is together");
    Ok(Some((0, sockets)))
}

/// What the workers of a process load.
fn share(restored: &Restored, process: usize, workers: usize, peers: usize) -> Vec<Part> {
    let here = |entry: &&Saved| entry.shared || owner(u64::from(entry.group), peers) as usize / workers == process;
    let part = |(uid, entries): (&String, &Vec<Saved>)| {
        let entries = entries.iter().filter(here).cloned().collect();
        Part { uid: uid.clone(), entries }
    };
    restored.iter().map(part).collect()
}

fn member(config: &Config, params: &dataflows::Params) -> Result<Member, ClusterError> {
    let cluster = &config.cluster;
    Ok(Member {
        name: cluster.name.clone(),
        process: cluster.process,
        processes: cluster.processes,
        workers: config.engine.workers,
        key_groups: KEY_GROUPS,
        version: env!("CARGO_PKG_VERSION").to_string(),
        program: program().map_err(|e| ClusterError::Retry(format!("this program's own file cannot be read: {e}")))?,
        settings: settings(params),
        generation: None,
    })
}

/// Digest of the file that runs.
fn program() -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut std::fs::File::open(std::env::current_exe()?)?, &mut hasher)?;
    Ok(hasher.finalize().to_hex()[..16].to_string())
}

/// `slates.kept` and the like with their values: all that decides what is computed.
fn settings(params: &dataflows::Params) -> BTreeMap<String, String> {
    let sections = serde_json::to_value(params).expect("settings are plain data");
    let sections = sections.as_object().into_iter().flatten();
    let keys = sections.flat_map(|(section, keys)| keys.as_object().into_iter().flatten().map(move |key| (section, key)));
    let mut settings: BTreeMap<String, String> =
        keys.map(|(section, (key, value))| (format!("{section}.{key}"), value.to_string())).collect();
    // where they lie is each machine's own; that there are some is not
    let (ranker, content) = (&params.ranker, &params.content);
    let folders = [
        ("ranker.registry", &ranker.registry),
        ("content.text_encoder", &content.text_encoder),
        ("content.image_encoder", &content.image_encoder),
    ];
    settings.extend(folders.map(|(key, folder)| (key.to_string(), (!folder.is_empty()).to_string())));
    settings.remove("content.queue"); // of the process that encodes
    // where the file lies is each machine's own; what is in it is not
    let model = params.ranker.loaded.as_ref().map_or("none", |model| &model.digest);
    settings.insert("ranker.model".into(), model.to_string());
    let shadow = params.ranker.shadowing.as_ref().map_or("none", |model| &model.digest);
    settings.insert("ranker.shadow".into(), shadow.to_string());
    let towers = params.towers.loaded.as_ref().map_or("none", |towers| &towers.digest);
    settings.insert("towers.model".into(), towers.to_string());
    let versions = params.experiments.versions.values().map(|model| model.digest.as_str());
    settings.insert("experiments.versions".into(), versions.collect::<Vec<_>>().join(","));
    // another device gives other last bits; what the shim or encoders opened in this process computes no slate
    let models = ["ranker.model", "ranker.shadow", "towers.model"].iter().any(|key| settings[*key] != "none");
    let runs = registry::runs_on().filter(|_| models || !params.experiments.versions.is_empty());
    settings.insert("onnx.device".into(), runs.map_or("none", |(device, _)| device.name()).to_string());
    settings
}

/// A running process that is not the first: it computes, and that is all.
pub struct Follower {
    workers: WorkerGuards<()>,
}

impl Follower {
    /// Waits until the cluster is together, then computes.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        failstop::arm();
        let params = super::with_model(config, super::shelf(config).map_err(StartError::Stop)?.as_ref())?;
        let joined = cluster::follow(&config.cluster, &member(config, &params)?)?;
        let (process, generation) = (config.cluster.process, joined.generation);
        tracing::info!(process, generation, "the cluster is together");
        let mut restored = Restored::new();
        joined.share.into_iter().for_each(|part| restored.entry(part.uid).or_default().extend(part.entries));
        let common = Common {
            params,
            workers: config.engine.workers,
            progress: Arc::new(Progress::new(config.engine.workers, dataflows::watched().map(|(stage, _)| stage))),
        };
        let workers = crew::start(common, Arc::new(restored), Some((process, joined.sockets)), None)?;
        Ok(Self { workers })
    }

    /// Whether process 0 has ended the run.
    pub fn has_ended(&self) -> bool {
        self.workers.guards().iter().all(|worker| worker.is_finished())
    }

    /// Waits until everything is said.
    pub fn join(self) {
        for result in self.workers.join() {
            result.expect("a worker that panics takes the process with it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_goes_to_the_process_that_owns_it_and_what_is_shared_to_all() {
        let entries: Vec<Saved> =
            (0..1024).map(|group| Saved { group, shared: group % 100 == 0, payload: group.to_be_bytes().to_vec() }).collect();
        let restored = Restored::from([("a/1".to_string(), entries.clone())]);
        for (processes, workers) in [(1, 3), (2, 1), (3, 2)] {
            let shares: Vec<Part> = (0..processes).flat_map(|p| share(&restored, p, workers, processes * workers)).collect();
            for entry in &entries {
                let times = shares.iter().flat_map(|part| &part.entries).filter(|e| *e == entry).count();
                assert_eq!(times, if entry.shared { processes } else { 1 }, "group {}", entry.group);
            }
        }
    }

    #[test]
    fn the_settings_that_are_compared_are_those_that_compute() {
        let settings = settings(&Config::defaults().recommend);
        assert_eq!((settings["slates.kept"].as_str(), settings["weights.like"].as_str()), ("200", "2.0"));
        assert!(settings.keys().all(|key| !key.starts_with("redis") && !key.starts_with("cluster")), "{settings:?}");
    }
}
