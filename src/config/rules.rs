//! What each value may be. One line a rule, in the order of `overdrive.toml`; a value without a rule may be anything of its type.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::{Config, Layers};
use crate::model::ids::TokenKind;
use crate::registry;
use crate::scoring::blend::Params as Blend;
use crate::scoring::cohorts::Params as Cohort;
use crate::scoring::experiments::{Experiment, Ranks};
use crate::sources::{KafkaParams, Mechanism};
use crate::state::Address;

/// A rule that does not hold: the settings it is about, and what is allowed.
pub struct Broken {
    pub keys: Vec<String>,
    pub allowed: String,
}

/// Every rule that `config`, made of `layers`, breaks.
pub fn broken(config: &Config, layers: &Layers) -> Vec<Broken> {
    let mut check = Check(Vec::new());
    durations(&mut check, layers);
    engine(&mut check, config);
    recovery(&mut check, config);
    supervisor(&mut check, config);
    cluster(&mut check, config);
    privacy(&mut check, config);
    inputs(&mut check, config);
    fluvio(&mut check, config);
    stores(&mut check, config);
    stages(&mut check, config);
    slates(&mut check, config);
    surfaces(&mut check, config);
    learn(&mut check, config);
    experiments(&mut check, config);
    flags(&mut check, config);
    factors(&mut check, config);
    content(&mut check, config);
    towers(&mut check, config);
    service(&mut check, config);
    check.0
}

/// Collects the rules that do not hold.
struct Check(Vec<Broken>);

impl Check {
    fn rule(&mut self, keys: &[&str], holds: bool, allowed: impl Into<String>) {
        if !holds {
            self.0.push(Broken { keys: keys.iter().map(|key| key.to_string()).collect(), allowed: allowed.into() });
        }
    }

    fn within(&mut self, key: &str, value: usize, range: RangeInclusive<usize>) {
        self.rule(&[key], range.contains(&value), format!("must be {} to {}", range.start(), range.end()));
    }

    fn at_least(&mut self, key: &str, value: usize, least: usize) {
        self.rule(&[key], value >= least, format!("must be {least} or more"));
    }

    fn number(&mut self, key: &str, value: f64, range: RangeInclusive<f64>) {
        self.rule(&[key], range.contains(&value), format!("must be a number from {} to {}", range.start(), range.end()));
    }

    fn one_of(&mut self, key: &str, value: &str, names: &[&str]) {
        self.rule(&[key], names.contains(&value), format!("must be one of {}", names.join(", ")));
    }
}

fn recovery(check: &mut Check, config: &Config) {
    check.within("recovery.snapshots_kept", config.recovery.snapshots_kept, 2..=100);
    let address = Address::parse(&config.recovery.url, Path::new(""));
    check.rule(&["recovery.url"], address.is_ok(), address.err().unwrap_or_default());
    let every = config.recovery.snapshot_every;
    check.rule(&["recovery.snapshot_every"], every >= Duration::from_secs(1), "must be 1s or more");
    let stalled = config.recovery.stalled_after;
    check.rule(&["recovery.stalled_after"], stalled >= Duration::from_secs(1), "must be 1s or more");
}

fn supervisor(check: &mut Check, config: &Config) {
    let supervisor = &config.supervisor;
    let ordered = supervisor.first_pause <= supervisor.longest_pause;
    check.rule(
        &["supervisor.first_pause", "supervisor.longest_pause"],
        ordered,
        "the first pause must not be longer than the longest",
    );
}

fn cluster(check: &mut Check, config: &Config) {
    let cluster = &config.cluster;
    check.within("cluster.processes", cluster.processes, 1..=256);
    let known = cluster.process < cluster.processes.max(1);
    check.rule(&["cluster.process", "cluster.processes"], known, "process must be 0 to processes - 1");
    let named = !(2..=256).contains(&cluster.processes) || !cluster.hosts.as_os_str().is_empty();
    check.rule(&["cluster.hosts", "cluster.processes"], named, "hosts must name a file with host:port for each process");
    let guessed = cluster.secret.is_empty() || cluster.secret.reveal().len() >= 16;
    check.rule(&["cluster.secret"], guessed, "must be 16 characters or more, or it can be guessed");
}

fn privacy(check: &mut Check, config: &Config) {
    // a name goes from memory after as many epochs, and then from the snapshots; the store remembers the deletion besides
    let name = config.engine.heartbeat * crate::sinks::writer::READ_AHEAD as u32;
    let least = config.store.tombstone_ttl + name + 2 * config.recovery.snapshot_every;
    let keys = ["privacy.purge_after", "store.tombstone_ttl", "recovery.snapshot_every", "engine.heartbeat"];
    let allowed = format!(
        "purge_after must be {} or more: store.tombstone_ttl, {} engine.heartbeat and two recovery.snapshot_every",
        humantime::format_duration(least),
        crate::sinks::writer::READ_AHEAD
    );
    check.rule(&keys, config.privacy.purge_after >= least, allowed);
    check.rule(&["privacy.audit"], !config.privacy.audit.as_os_str().is_empty(), "must name a file");
}

/// Whatever a default spells as a duration is one.
fn durations(check: &mut Check, layers: &Layers) {
    const LONGEST: Duration = Duration::from_secs(3650 * 24 * 3600);
    let defaults = Layers::defaults();
    for (key, text) in layers.texts() {
        if !defaults.is_duration(key) {
            continue;
        }
        let Ok(span) = humantime::parse_duration(text) else { continue };
        let least = if ["ledger.ahead", "training.every"].contains(&key) { Duration::ZERO } else { Duration::from_millis(1) };
        let whole = span.subsec_nanos() % 1_000_000 == 0;
        let allowed = format!("must be whole milliseconds from {} to 3650d", humantime::format_duration(least));
        check.rule(&[key], whole && (least..=LONGEST).contains(&span), allowed);
    }
}

fn engine(check: &mut Check, config: &Config) {
    let engine = &config.engine;
    check.within("engine.workers", engine.workers, 1..=256);
    check.within("engine.epoch_rows", engine.epoch_rows, 1..=1_000_000);
    check.within("engine.epochs_in_flight", engine.epochs_in_flight, 1..=1_024);
    check.rule(&["engine.state_dir"], !engine.state_dir.as_os_str().is_empty(), "must name a folder");
}

fn inputs(check: &mut Check, config: &Config) {
    use crate::sinks::changes::Kind as Changes;
    use crate::sources::Kind;
    let kafka_built = cfg!(feature = "kafka");
    let without = "this binary was built without Kafka; build it with the feature `kafka`";
    check.rule(&["source.kind"], config.source.kind != Kind::Kafka || kafka_built, without);
    check.rule(&["changes.kind"], config.changes.kind != Changes::Kafka || kafka_built, without);
    let fluvio_built = config.source.kind != Kind::Fluvio || cfg!(feature = "fluvio");
    check.rule(&["source.kind"], fluvio_built, "this binary was built without Fluvio; build it with the feature `fluvio`");
    check.at_least("changes.max_bytes", config.changes.max_bytes as usize, 1_024);

    check.within("log.partitions", config.log.partitions as usize, 1..=1_024);
    check.at_least("log.segment_bytes", config.log.segment_bytes as usize, 1_024);

    let kafka = &config.kafka;
    let addresses = !kafka.brokers.is_empty() && kafka.brokers.split(',').all(|broker| is_address(broker.trim()));
    check.rule(&["kafka.brokers"], addresses, "must be host:port, several separated by commas");
    let topics = [
        ("kafka.events_topic", &kafka.events_topic),
        ("kafka.items_topic", &kafka.items_topic),
        ("kafka.users_topic", &kafka.users_topic),
        ("kafka.control_topic", &kafka.control_topic),
        ("kafka.slates_topic", &kafka.slates_topic),
        ("kafka.dead_topic", &kafka.dead_topic),
    ];
    distinct_topics(check, &topics, is_topic, "must be 1 to 249 letters, digits, dots, dashes and underscores");
    check.within("kafka.partitions", kafka.partitions as usize, 1..=4_096);
    check.within("kafka.replication", kafka.replication as usize, 1..=32_767);
    check.rule(&["kafka.topics_every"], kafka.topics_every >= Duration::from_millis(100), "must be 100ms or more");
    check.within("kafka.queued_max_kbytes", kafka.queued_max_kbytes as usize, 1..=2_097_151);
    let held = kafka.fetch_wait_max <= Duration::from_secs(300);
    check.rule(&["kafka.fetch_wait_max"], held, "must be 5m or less: the client refuses more");
    let asks = kafka.security.is_sasl();
    check.rule(&["kafka.username", "kafka.security"], asks != kafka.username.is_empty(), "sasl_… needs a user; others have none");
    let given = usize::from(!kafka.password.is_empty()) + usize::from(is_named(&kafka.password_file));
    let keys = ["kafka.password", "kafka.password_file", "kafka.security"];
    check.rule(&keys, given == usize::from(asks), "sasl_… needs one of password and password_file; others have none");
    proofs(check, "kafka", "kafka.security", [&kafka.ca, &kafka.cert, &kafka.key], kafka.security.is_encrypted());
    kafka_tls(check, kafka, cfg!(feature = "kafka-tls"));
}

/// PLAIN asks for no cryptography; everything else is OpenSSL's.
fn kafka_tls(check: &mut Check, kafka: &KafkaParams, built: bool) {
    let scram = kafka.security.is_sasl() && kafka.sasl_mechanism != Mechanism::Plain;
    let allowed = "this binary was built without TLS for Kafka; build it with the feature `kafka-tls` (it needs OpenSSL)";
    check.rule(&["kafka.security", "kafka.sasl_mechanism"], built || !scram && !kafka.security.is_encrypted(), allowed);
}

/// Authorities, a certificate and its key, which only TLS has a use for.
fn proofs(check: &mut Check, section: &str, chosen_by: &str, files: [&Path; 3], encrypted: bool) {
    let [ca, cert, key] = ["ca", "cert", "key"].map(|name| format!("{section}.{name}"));
    let unused = !encrypted && files.iter().any(|file| is_named(file));
    check.rule(&[&ca, &cert, &key, chosen_by], !unused, "these files are for TLS, which is not asked for");
    check.rule(&[&cert, &key], is_named(files[1]) == is_named(files[2]), "must both name a file, or neither");
}

fn is_named(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

fn fluvio(check: &mut Check, config: &Config) {
    let fluvio = &config.fluvio;
    check.rule(&["fluvio.endpoint"], is_address(&fluvio.endpoint), "must be host:port");
    let topics = [
        ("fluvio.events_topic", &fluvio.events_topic),
        ("fluvio.items_topic", &fluvio.items_topic),
        ("fluvio.users_topic", &fluvio.users_topic),
        ("fluvio.control_topic", &fluvio.control_topic),
    ];
    distinct_topics(check, &topics, is_fluvio_topic, "must be 1 to 63 small letters, digits and dashes, none at an end");
    check.within("fluvio.partitions", fluvio.partitions as usize, 1..=4_096);
    check.within("fluvio.replication", fluvio.replication as usize, 1..=1_024);
}

fn distinct_topics(check: &mut Check, topics: &[(&str, &String)], is_topic: fn(&str) -> bool, allowed: &str) {
    for (i, (key, topic)) in topics.iter().enumerate() {
        check.rule(&[key], is_topic(topic), allowed);
        for (other, same) in &topics[i + 1..] {
            check.rule(&[key, other], topic != same, "must be different topics");
        }
    }
}

fn stores(check: &mut Check, config: &Config) {
    let redis_built = config.store.kind != crate::sinks::Kind::Redis || cfg!(feature = "redis");
    check.rule(&["store.kind"], redis_built, "this binary was built without Redis; build it with the feature `redis`");
    let plain = |c: char| c.is_ascii_graphic() && c != '{' && c != '}';
    let prefix = config.store.prefix.len() <= 64 && config.store.prefix.chars().all(plain);
    check.rule(&["store.prefix"], prefix, "must be at most 64 visible ASCII characters without braces: those choose the slot");
    let again = Duration::from_secs(12 * 3_600);
    for (key, ttl) in [("store.near_ttl", config.store.near_ttl), ("store.card_ttl", config.store.card_ttl)] {
        check.rule(&[key], ttl >= again, "must be 12h or more: what does not change is told every 6h");
    }
    let told = config.recommend.experiments.list.is_empty() || config.store.trending_ttl >= again;
    let allowed = "with experiments it must be 12h or more: sums that do not change are told every 6h";
    check.rule(&["store.trending_ttl", "experiments.list"], told, allowed);
    let kept = config.store.tombstone_ttl >= Duration::from_secs(60);
    check.rule(&["store.tombstone_ttl"], kept, "must be 1m or more: a deletion must outlive the replay after a crash");
    check.at_least("store.max_dirty_keys", config.store.max_dirty_keys, 1);
    let schemes = ["redis://", "rediss://", "unix://", "redis+unix://"];
    let url = schemes.iter().any(|scheme| config.redis.url.starts_with(scheme));
    check.rule(&["redis.url"], url, "must begin with redis://, rediss:// or unix://");
    let encrypted = config.redis.url.starts_with("rediss://");
    let redis = &config.redis;
    proofs(check, "redis", "redis.url", [&redis.ca, &redis.cert, &redis.key], encrypted);
    check.within("redis.pipeline", config.redis.pipeline, 1..=100_000);
}

fn stages(check: &mut Check, config: &Config) {
    let stages = &config.recommend;
    check.at_least("ledger.records_per_user", stages.ledger.records_per_user, 1);
    check.at_least("ledger.history_per_user", stages.ledger.history_per_user, 1);
    check.at_least("ledger.events_per_minute", stages.ledger.events_per_minute, 1);

    check.number("signals.prior_ctr", stages.signals.prior_ctr, 0.0..=1.0);
    check.number("signals.prior_engagement", stages.signals.prior_engagement, 0.0..=1.0);
    let trusted = stages.signals.prior_strength;
    check.rule(
        &["signals.prior_strength"],
        trusted > 0.0 && trusted.is_finite(),
        "must be a number above 0: an item nobody has seen has the prior's rate",
    );
    for (kind, weight) in &stages.weights.0 {
        check.number(&format!("weights.{}", kind.name()), *weight, -1_000_000.0..=1_000_000.0);
    }
    let interests = &stages.interests;
    let ordered = interests.short_half_life <= interests.long_half_life;
    check.rule(
        &["interests.short_half_life", "interests.long_half_life"],
        ordered,
        "the short half-life must not be longer than the long one",
    );
    check.within("interests.kept", interests.kept, 1..=1_000);
    check.number("interests.signup_weight", interests.signup_weight, 0.0..=1_000_000.0);
    check.within("neighbours.reach", stages.neighbours.reach, 1..=500);
    check.within("neighbours.kept", stages.neighbours.kept, 1..=1_000);
    check.number("neighbours.damping", stages.neighbours.damping, 0.0..=1_000_000.0);
    check.within("trending.kept", stages.trending.kept, 1..=1_000);
    check.within("near.kept", stages.near.kept, 1..=1_000);
}

fn slates(check: &mut Check, config: &Config) {
    let slates = &config.recommend.slates;
    check.within("slates.kept", slates.kept, 1..=500);
    check.within("slates.candidates", slates.candidates, 1..=10_000);
    check.within("slates.neighbours_from", slates.neighbours_from, 0..=500);
    let sources = [
        ("slates.neighbours", slates.neighbours),
        ("slates.interests", slates.interests),
        ("slates.trending", slates.trending),
        ("slates.fresh", slates.fresh),
        ("slates.near", slates.near),
    ];
    for (key, most) in sources {
        check.within(key, most, 0..=10_000);
    }
    check.rule(&sources.map(|(key, _)| key), sources.iter().any(|(_, most)| *most > 0), "one of them must be above 0");
    let busy = slates.busy_refreshes;
    check.rule(&["slates.busy_refreshes"], busy > 0.0 && busy <= 100.0, "must be a number above 0, at most 100");
    check.number("slates.author_decay", slates.author_decay, 0.0..=1.0);
    check.number("slates.author_floor", slates.author_floor, 0.0..=1.0);
    check.number("slates.category_decay", slates.category_decay, 0.0..=1.0);
    check.number("slates.category_floor", slates.category_floor, 0.0..=1.0);

    let explore = &config.recommend.explore;
    check.within("explore.slots", explore.slots, 0..=100);
    check.within("explore.every", explore.every, 1..=500);
    check.within("explore.drawn", explore.drawn, 1..=1_000);
    check.within("explore.shown", explore.shown as usize, 1..=1_000_000);
    weights(check, "blend", &config.recommend.blend);
    check.number("cold.n0", config.recommend.cold.n0, 0.0..=1_000_000.0);
    weights(check, "cold", &config.recommend.cold.weights());
}

fn weights(check: &mut Check, section: &str, weights: &Blend) {
    let terms = named(weights).map(|(term, weight)| (format!("{section}.{term}"), weight));
    for (key, weight) in &terms {
        check.number(key, *weight, 0.0..=1_000_000.0);
    }
    let keys: Vec<&str> = terms.iter().map(|(key, _)| key.as_str()).collect();
    check.rule(&keys, terms.iter().any(|(_, weight)| *weight > 0.0), "their sum must be above 0");
}

fn named(weights: &Blend) -> [(&'static str, f64); 5] {
    let Blend { content, collaborative, real_time, interests, freshness } = *weights;
    let weights = [content, collaborative, real_time, interests, freshness];
    std::array::from_fn(|term| (crate::model::slate::TERMS[term], weights[term]))
}

/// Half of the way around the earth.
const FARTHEST_KM: f64 = 20_040.0;

fn surfaces(check: &mut Check, config: &Config) {
    const KEY: &str = "surfaces.list";
    const TAKEN: [&str; 5] = ["home", "category", "near", "trending", "for-you"];
    let list = &config.recommend.surfaces.list;
    check.rule(&[KEY], list.len() <= 16, "must be 16 surfaces at most");
    check.rule(&[KEY], distinct(list.iter().map(|own| own.name.as_str())), "surfaces must have different names");
    for own in list {
        let slates = own.slates(&config.recommend.slates);
        let mut rule = |holds, allowed: &str| check.rule(&[KEY], holds, format!("the surface `{}`: {allowed}", own.name));
        let name = is_plain(&own.name) && !TAKEN.contains(&own.name.as_str());
        rule(
            name,
            "its name must be 1 to 64 small letters, digits, dashes and underscores, and none of home, category, near, trending, for-you",
        );
        rule((1..=500).contains(&slates.kept), "kept must be 1 to 500");
        rule((1..=10_000).contains(&slates.candidates), "candidates must be 1 to 10000");
        let sources = [slates.neighbours, slates.interests, slates.trending, slates.fresh, slates.near];
        rule(sources.iter().all(|most| *most <= 10_000), "neighbours, interests, trending, fresh and near must be 0 to 10000");
        rule(sources.iter().any(|most| *most > 0), "one of neighbours, interests, trending, fresh and near must be above 0");
        let shares = [slates.author_decay, slates.author_floor, slates.category_decay, slates.category_floor];
        rule(shares.iter().all(|share| (0.0..=1.0).contains(share)), "decays and floors must be numbers from 0 to 1");
        if let Some(blend) = &own.blend {
            let weights = named(blend).map(|(_, weight)| weight);
            rule(
                weights.iter().all(|weight| (0.0..=1e6).contains(weight)),
                "weights of its blend must be numbers from 0 to 1000000",
            );
            rule(weights.iter().any(|weight| *weight > 0.0), "the sum of its blend must be above 0");
        }
        let spans = [own.fresh_half_life, own.only.max_age].into_iter().flatten();
        rule(spans.into_iter().all(|span| span > 0), "fresh_half_life and max_age must be above 0");
        let quality = own.only.min_quality.is_none_or(|least| (0.0..=1.0).contains(&least));
        rule(quality, "min_quality must be a number from 0 to 1");
        let within = own.only.within_km.is_none_or(|km| km > 0.0 && km <= FARTHEST_KM);
        rule(within, "within_km must be a number above 0, at most 20040");
        let names = [&own.only.categories, &own.only.tags, &own.only.languages];
        rule(names.iter().all(|names| names.len() <= 32), "it may name 32 categories, tags and languages each");
    }
}

fn learn(check: &mut Check, config: &Config) {
    let learn = &config.recommend.learn;
    check.within("learn.per_source", learn.per_source, 1..=1_000);
    check.within("learn.links", learn.links, 1..=10_000);
    for (key, rate) in [("learn.linear_rate", learn.linear_rate), ("learn.hidden_rate", learn.hidden_rate)] {
        check.number(key, rate, 0.0..=10.0);
    }
    check.number("learn.share", learn.share, 0.0..=1.0);
    check.number("learn.busy_share", learn.busy_share, 0.0..=1.0);
    check.number("learn.logged", learn.logged, 0.0..=1.0);
    check.number("learn.impressions", learn.impressions, 0.0..=1.0);
    check.number("ranker.share", config.recommend.ranker.share, 0.0..=1.0);
    let ranker = &config.recommend.ranker;
    let described = learn.enabled || ranker.model.is_empty() && ranker.registry.is_empty();
    let logs = learn.enabled || learn.logged == 0.0;
    check.rule(&["learn.logged", "learn.enabled"], logs, "examples are made of what learn.enabled = true learns from");
    let watches = learn.enabled || learn.impressions == 0.0;
    check.rule(
        &["learn.impressions", "learn.enabled"],
        watches,
        "what is known of an item that is shown is what learn.enabled = true keeps",
    );
    check.rule(
        &["ranker.model", "ranker.registry", "learn.enabled"],
        described,
        "a model needs the features that learn.enabled = true keeps",
    );
    check.rule(&["ranker.registry"], registry::is_address(&ranker.registry), registry::ADDRESSES);
    check.number("ranker.shadow_share", ranker.shadow_share, 0.0..=1.0);
    let found = ranker.shadow.is_empty() || !ranker.registry.is_empty();
    check.rule(&["ranker.shadow", "ranker.registry"], found, "a shadow is a version in the registry; name its folder");
    let one = ranker.model.is_empty() || ranker.registry.is_empty();
    check.rule(&["ranker.model", "ranker.registry"], one, "name a model or a folder of versions, not both");
    training(check, config);
}

fn training(check: &mut Check, config: &Config) {
    let (training, logged) = (&config.training, config.recommend.learn.logged > 0.0);
    check.within("training.least", training.least, 1..=1_000_000);
    check.rule(&["training.watch"], !training.watch.is_zero(), "it must be above 0s");
    check.rule(&["training.python"], !training.python.as_os_str().is_empty(), "name a Python 3, such as python3");
    let published = !config.recommend.ranker.registry.is_empty();
    let found = !training.enabled || logged && published;
    let allowed = "training takes the examples that learn.logged above 0 keeps, and makes versions in ranker.registry";
    check.rule(&["training.enabled", "learn.logged", "ranker.registry"], found, allowed);
    let runs = !training.enabled || cfg!(feature = "onnx");
    check.rule(&["training.enabled"], runs, "this build runs no models; build with the feature `onnx`");
}

fn flags(check: &mut Check, config: &Config) {
    let flags = &config.recommend.flags;
    check.number("flags.ml_recommendations", flags.ml_recommendations, 0.0..=1.0);
    check.number("flags.personalized_feed", flags.personalized_feed, 0.0..=1.0);
    check.number("flags.engagement_ranking", flags.engagement_ranking, 0.0..=1.0);
}

fn experiments(check: &mut Check, config: &Config) {
    const KEY: &str = "experiments.list";
    let list = &config.recommend.experiments.list;
    check.rule(&[KEY], list.len() <= 64, "must be 64 experiments at most");
    check.rule(&[KEY], distinct(list.iter().map(|of| of.name.as_str())), "experiments must have different names");
    for Experiment { name, rollout, cohort, arms } in list {
        let mut rule = |holds, allowed: &str| check.rule(&[KEY], holds, format!("the experiment `{name}`: {allowed}"));
        rule(is_plain(name), "its name must be 1 to 64 small letters, digits, dashes and underscores");
        rule((0.0..=1.0).contains(rollout), "its rollout must be a number from 0 to 1");
        rule((2..=16).contains(&arms.len()), "it must have 2 to 16 arms");
        rule(distinct(arms.iter().map(|arm| arm.name.as_str())), "its arms must have different names");
        let named = arms.iter().all(|arm| is_plain(&arm.name));
        rule(named, "names of its arms must be 1 to 64 small letters, digits, dashes and underscores");
        let weighed = arms.iter().all(|arm| arm.weight > 0.0 && arm.weight <= 1_000_000.0);
        rule(weighed, "weights of its arms must be numbers above 0, at most 1000000");
        for wrong in asked_wrongly(cohort.params()) {
            rule(false, &wrong);
        }
    }
    let ranker = &config.recommend.ranker;
    let (registry, model) = (!ranker.registry.is_empty(), !ranker.model.is_empty());
    let ranks = |asked: fn(&Ranks) -> bool| list.iter().flat_map(|of| &of.arms).any(|arm| asked(&arm.ranks));
    let versions = ranks(|ranks| matches!(ranks, Ranks::Version(_)));
    let allowed = "arms rank by fixed, blend, model, or a version in the registry: name its folder";
    check.rule(&[KEY, "ranker.registry"], registry || !versions, allowed);
    let served = registry || model || !ranks(|ranks| *ranks == Ranks::Model);
    check.rule(&[KEY, "ranker.model", "ranker.registry"], served, "an arm that ranks by model needs a model or a registry");
    let learned = config.recommend.learn.enabled || !ranks(|ranks| *ranks == Ranks::Fixed);
    let allowed = "without learn.enabled = true the blend has fixed weights; say blend instead of fixed";
    check.rule(&[KEY, "learn.enabled"], learned, allowed);
}

/// What is wrong with a cohort.
fn asked_wrongly(cohort: &Cohort) -> Vec<String> {
    let Cohort { languages, cities, interests, users } = cohort;
    let lists = [("languages", languages, 64), ("cities", cities, 64), ("interests", interests, 64), ("users", users, 10_000)];
    let mut wrong = Vec::new();
    for (what, names, most) in lists {
        let names = names.as_deref().unwrap_or(&[]);
        let same = |name: &String| if what == "cities" { name.to_lowercase() } else { name.clone() };
        let mut met = BTreeSet::new();
        let blank = |name: &&String| name.is_empty() || name.trim() != name.as_str() || name.chars().any(char::is_control);
        wrong.extend(
            names
                .iter()
                .find(blank)
                .map(|name| format!("{what} of its cohort: `{}` must be a name without blanks around it", name.escape_debug())),
        );
        let twice = names.iter().find(|name| !met.insert(same(name)));
        wrong.extend(twice.map(|name| format!("{what} of its cohort must be different, `{}` stands twice", name.escape_debug())));
        wrong.extend((names.len() > most).then(|| format!("{what} of its cohort must be {most} at most")));
    }
    for (what, names, _) in lists {
        let nobody = names.as_ref().is_some_and(Vec::is_empty);
        wrong.extend(nobody.then(|| format!("{what} of its cohort must have a name; leave {what} out to let everybody through")));
    }
    let nameless = |word: &&String| TokenKind::of_interest(word).1.is_empty() && !word.is_empty();
    let word = interests.iter().flatten().find(nameless);
    wrong.extend(word.map(|word| format!("interests of its cohort: `{word}` has no name; add one or leave it out")));
    wrong
}

/// No two are the same.
fn distinct<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    let mut met = BTreeSet::new();
    names.all(|name| met.insert(name))
}

/// A name that may stand in fields, keys and answers.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

fn factors(check: &mut Check, config: &Config) {
    let factors = &config.recommend.factors;
    check.number("factors.alpha", factors.alpha, 1.0..=1_000.0);
    check.number("factors.reg", factors.reg, 0.001..=1_000.0);
    check.within("factors.history", factors.history, 1..=10_000);
    check.within("factors.sweeps", factors.sweeps as usize, 1..=100);
    check.within("factors.rounds", factors.rounds as usize, 1..=1_024);
    check.within("factors.kept", factors.kept, 1..=1_000);
}

fn content(check: &mut Check, config: &Config) {
    let content = &config.recommend.content;
    check.within("content.dimensions", content.dimensions, 0..=4_096);
    check.within("content.from", content.from, 1..=100);
    check.within("content.kept", content.kept, 1..=1_000);
    check.within("content.text_bytes", content.text_bytes, 16..=65_536);
    check.at_least("content.waiting_bytes", content.waiting_bytes, 1);
    check.within("content.queue", content.queue, 1..=100_000);
    let named = !content.text_encoder.is_empty() || !content.image_encoder.is_empty();
    let runs = !content.enabled || !named || cfg!(feature = "onnx");
    let keys = ["content.text_encoder", "content.image_encoder"];
    check.rule(&keys, runs, "this build runs no models; build with the feature `onnx`");
    let used = !content.enabled || named || content.dimensions > 0;
    let keys = ["content.enabled", "content.dimensions", "content.text_encoder", "content.image_encoder"];
    check.rule(&keys, used, "content is known by embeddings of so many dimensions, or by an encoder: set one of these");
}

fn towers(check: &mut Check, config: &Config) {
    let towers = &config.recommend.towers;
    check.within("towers.kept", towers.kept, 1..=1_000);
    let runs = towers.model.is_empty() || cfg!(feature = "onnx");
    check.rule(&["towers.model"], runs, "this build runs no models; build with the feature `onnx`");
}

fn service(check: &mut Check, config: &Config) {
    let service = &config.service;
    for (key, bind) in [("service.bind", &service.bind), ("metrics.bind", &config.metrics.bind)] {
        check.rule(&[key], bind.parse::<IpAddr>().is_ok(), "must be an IP address, such as 127.0.0.1, 0.0.0.0 or ::1");
    }
    check.within("service.threads", service.threads, 1..=256);
    check.at_least("service.body_limit", service.body_limit, 1);
    check.at_least("service.batch_limit", service.batch_limit, 1);
    check.within("service.feeds_limit", service.feeds_limit, 1..=1_000);
    check.within("service.exclude_limit", service.exclude_limit, 1..=10_000);
    check.within("service.candidates_limit", service.candidates_limit, 1..=10_000);
    check.at_least("service.connections", service.connections, 1);
    let sooner = service.store_timeout < service.request_timeout;
    check.rule(
        &["service.request_timeout", "service.store_timeout"],
        sooner,
        "store_timeout must be shorter than request_timeout",
    );
    check.within("service.max_k", service.max_k, 1..=1_000);
    let k = (1..=service.max_k).contains(&service.default_k);
    check.rule(&["service.default_k", "service.max_k"], k, "default_k must be 1 to max_k");
    check.within("service.max_id_bytes", service.max_id_bytes, 1..=256);
    let (by, registry) = (&service.rank_by, &config.recommend.ranker.registry);
    let found = by.is_empty() || by.ends_with(".onnx") || !registry.is_empty();
    check.rule(
        &["service.rank_by", "ranker.registry"],
        found,
        "name a file that ends in .onnx, or the folder of versions as well",
    );
    let apart = config.metrics.port == 0 || config.metrics.port != service.port;
    check.rule(&["metrics.port", "service.port"], apart, "must be different ports");
    let grpc = |port: u16| service.grpc && port != 0 && port == service.grpc_port;
    check.rule(&["service.grpc_port", "service.port"], !grpc(service.port), "must be different ports");
    check.rule(&["metrics.port", "service.grpc_port"], !grpc(config.metrics.port), "must be different ports");

    check.at_least("access.token_burst", config.access.token_burst as usize, 1);
    check.at_least("access.address_burst", config.access.address_burst as usize, 1);
    let access = &config.access;
    let [certificate, key, ca] = [&access.tls_cert, &access.tls_key, &access.client_ca].map(|path| !path.as_os_str().is_empty());
    check.rule(&["access.tls_cert", "access.tls_key"], certificate == key, "must both name a file, or neither");
    check.rule(
        &["access.client_ca", "access.tls_cert"],
        certificate || !ca,
        "clients show a certificate only to one who shows theirs",
    );
    check.rule(&["access.audit"], !config.access.audit.as_os_str().is_empty(), "must name a file");

    let filter = tracing_subscriber::EnvFilter::try_new(&config.logging.filter).is_ok();
    check.rule(&["logging.filter"], filter, "must be a level (error, warn, info, debug, trace) or module=level, with commas");
    check.one_of("logging.format", &config.logging.format, &["text", "json"]);
}

/// `host:port`.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// A name Kafka takes.
fn is_topic(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=249).contains(&name.len()) && name.chars().all(plain) && name != "." && name != ".."
}

/// A name Fluvio takes.
fn is_fluvio_topic(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::Security;

    #[test]
    fn c37_a_binary_without_openssl_says_what_it_cannot_and_does_what_it_can() {
        let refused = |security, sasl_mechanism, built| {
            let mut check = Check(Vec::new());
            kafka_tls(&mut check, &KafkaParams { security, sasl_mechanism, ..Config::defaults().kafka }, built);
            check.0.first().map(|broken| broken.allowed.clone())
        };
        for (security, mechanism) in [
            (Security::Ssl, Mechanism::Plain),
            (Security::SaslSsl, Mechanism::Plain),
            (Security::SaslPlaintext, Mechanism::Scram256),
            (Security::SaslPlaintext, Mechanism::Scram512),
        ] {
            let said = refused(security, mechanism, false).unwrap_or_default();
            assert!(said.contains("build it with the feature `kafka-tls`"), "{security:?} {mechanism:?}: {said}");
            assert_eq!(refused(security, mechanism, true), None);
        }
        assert_eq!(refused(Security::Plaintext, Mechanism::Scram256, false), None);
        assert_eq!(refused(Security::SaslPlaintext, Mechanism::Plain, false), None);
    }
}
