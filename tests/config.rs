//! Configuration from outside: layers, complaints, the binary's exit codes. What it cannot catch: a setting that is read and
//! then does nothing; the tests of the room it belongs to do.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use overdrive::config::{Config, ConfigError, DEFAULTS};

mod support;
use support::redis::RedisServer;

/// Loads a file with this text, called `settings.toml`, and this environment.
fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("settings.toml");
    std::fs::write(&file, text).expect("writable");
    let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    // The folder differs from run to run: complaints are compared without it.
    let folder = format!("{}/", dir.path().display());
    Config::load(Some(&file), env)
        .map_err(|e| ConfigError { problems: e.problems.iter().map(|p| p.replace(&folder, "")).collect() })
}

/// The problems of a configuration that must be refused.
fn refused(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    load(text, env).expect_err("must be refused").problems
}

fn keys(of: &toml::Table) -> BTreeSet<String> {
    let of_section = |(section, keys): (&String, &toml::Value)| {
        let keys: Vec<String> = keys.as_table().expect("a section").keys().map(|key| format!("{section}.{key}")).collect();
        keys
    };
    of.iter().flat_map(of_section).collect()
}

#[test]
fn every_key_of_the_file_is_a_field_and_every_field_is_in_the_file() {
    let file: toml::Table = DEFAULTS.parse().expect("overdrive.toml is TOML");
    let fields = toml::Table::try_from(Config::defaults()).expect("settings are TOML");
    assert_eq!(keys(&file), keys(&fields));
    // Reading ignores what no field takes, so the other direction is proven by what writing gives back.
    assert_eq!(load(DEFAULTS, &[]), Ok(Config::defaults()));
}

#[test]
fn every_key_of_the_file_has_a_comment_or_stands_in_a_section_with_one() {
    let mut section_says = false;
    for (number, line) in DEFAULTS.lines().enumerate() {
        let says = line.contains(" # ");
        if line.starts_with('[') {
            section_says = says;
        } else if line.contains(" = ") && !line.trim_start().starts_with('#') {
            assert!(says || section_says, "overdrive.toml line {}: `{line}` has no comment", number + 1);
        }
    }
}

#[test]
fn the_file_says_what_every_short_name_sets() {
    let short = [
        ("OVERDRIVE_KAFKA_BROKERS", "a:1"),
        ("KAFKA_BOOTSTRAP_SERVERS", "b:1"),
        ("OVERDRIVE_REDIS_URL", "redis://c"),
        ("REDIS_URL", "redis://d"),
        ("OVERDRIVE_SERVICE_PORT", "5"),
        ("SERVICE_PORT", "6"),
        ("OVERDRIVE_STATE_DIR", "e"),
        ("OVERDRIVE_FEATURE_TTL_SECONDS", "7"),
    ];
    for (name, value) in short {
        let changed = load("", &[(name, value)]).expect("accepted").changed();
        assert_eq!(changed.len(), 1, "{name}");
        let key = changed[0].0.split_once('.').expect("section.key").1;
        let line = DEFAULTS.lines().find(|line| line.split([' ', ',']).any(|word| word == name));
        let line = line.unwrap_or_else(|| panic!("overdrive.toml does not mention {name}"));
        assert!(line.starts_with(&format!("{key} = ")), "{name} sets {key}, yet stands at `{line}`");
    }
}

#[test]
fn file_beats_default_environment_beats_file() {
    let text = "[engine]\nworkers = 3\nepoch_rows = 7\n[redis]\nurl = 'redis://file'\n";
    let config = load(text, &[("OVERDRIVE_ENGINE__WORKERS", "4"), ("OVERDRIVE_WEIGHTS__LIKE", "9")]).expect("allowed");
    assert_eq!((config.engine.workers, config.engine.epoch_rows, config.engine.epochs_in_flight), (4, 7, 4));
    assert_eq!(config.redis.url, "redis://file");
    assert_eq!(config.recommend.weights.table().milli(overdrive::model::Kind::Like), 9_000, "a whole number is a number");
}

#[test]
fn c31_flags_are_read_as_clients_spell_them_too() {
    let flags = |text: &str| load(&format!("[flags]\n{text}"), &[]).expect("allowed").recommend.flags;
    let theirs = flags("mlRecommendations = 0.25\npersonalizedFeed = 0.5\nengagementRanking = 0");
    assert_eq!(theirs, flags("ml_recommendations = 0.25\npersonalized_feed = 0.5\nengagement_ranking = 0"));
    assert_eq!((theirs.ml_recommendations, theirs.personalized_feed, theirs.engagement_ranking), (0.25, 0.5, 0.0));
    let problem = refused("[flags]\nmlRecommendations = 2", &[]).remove(0);
    assert!(problem.contains("flags.ml_recommendations") && problem.contains("line 2"), "{problem}");
    let both = refused("[flags]\nml_recommendations = 0.5\n\nmlRecommendations = 0.25", &[]);
    let says = "`flags.ml_recommendations` in settings.toml line 2 and `flags.mlRecommendations` in line 4 are one setting by two \
                names; leave one of them";
    assert_eq!(both, [says]);
}

#[test]
fn among_variables_the_more_particular_wins() {
    let url = |env: &[(&str, &str)]| load("", env).expect("allowed").redis.url;
    let (plain, short, full) =
        (("REDIS_URL", "redis://plain"), ("OVERDRIVE_REDIS_URL", "redis://short"), ("OVERDRIVE_REDIS__URL", "redis://full"));
    assert_eq!(url(&[plain]), "redis://plain");
    assert_eq!(url(&[plain, short]), "redis://short");
    assert_eq!(url(&[full, plain, short]), "redis://full");
    assert_eq!(url(&[("REDIS_URL", "")]), Config::defaults().redis.url, "handed on by a compose file, but not set");
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_name() {
    let text = "[engine]\nworkers = 2\n\nworker = 4\n[slate]\nkept = 3\n[blend]\nzeal = 1\n";
    assert_eq!(
        refused(text, &[("OVERDRIVE_ENGINE__WORKER", "3"), ("OVERDRIVE_REDIS_URI", "x"), ("OVERDRIVE_XYZ", "")]),
        [
            "unknown key `engine.worker` in settings.toml line 4; did you mean `engine.workers`?",
            "unknown section `slate` in settings.toml line 5; did you mean `slates`?",
            "unknown key `blend.zeal` in settings.toml line 8; [blend] has collaborative, content, freshness, interests, real_time",
            "unknown environment variable OVERDRIVE_ENGINE__WORKER; did you mean OVERDRIVE_ENGINE__WORKERS?",
            "unknown environment variable OVERDRIVE_REDIS_URI; did you mean OVERDRIVE_REDIS_URL?",
            "unknown environment variable OVERDRIVE_XYZ; `overdrive config print --env` lists them all",
        ]
    );
}

#[test]
fn a_key_without_its_section_and_a_section_that_is_a_value_are_explained() {
    assert_eq!(
        refused("workers = 4\nengine = 3\n", &[]),
        [
            "unknown section `workers` in settings.toml line 1; did you mean `engine.workers`?",
            "`engine` in settings.toml line 2 must be a section: write [engine]",
        ]
    );
    assert_eq!(
        refused("[engine.workers]\nmany = 1\n", &[]),
        ["`engine.workers` = { many = 1 } in settings.toml line 1: must be a whole number"]
    );
}

#[test]
fn variables_of_tests_clients_and_kubernetes() {
    let fine = [("OVERDRIVE_TEST_FLUVIO", "x"), ("OVERDRIVE_KAFKA_JARS", "x"), ("OVERDRIVE_CLIENT_BASE_URL", "x"), ("PATH", "x")];
    assert_eq!(load("", &fine), Ok(Config::defaults()));
    let linked = refused("", &[("OVERDRIVE_PORT_8088_TCP", "tcp://10.0.0.1:8088")]);
    assert!(linked.len() == 1 && linked[0].contains("enableServiceLinks"), "{linked:?}");
}

#[test]
fn a_wrong_type_names_key_value_place_and_what_is_allowed() {
    let text = "[engine]\nworkers = \"two\"\ntick = 5\nclock = \"moon\"\nheartbeat = \"soon\"\n[log]\nfsync = 1\n";
    assert_eq!(
        refused(text, &[("OVERDRIVE_SERVICE__PORT", "http"), ("OVERDRIVE_BLEND__CONTENT", "much")]),
        [
            "`engine.workers` = \"two\" in settings.toml line 2: must be a whole number",
            "`engine.tick` = 5 in settings.toml line 3: must be text in quotes",
            "`log.fsync` = 1 in settings.toml line 7: must be true or false",
            "`blend.content` = \"much\" in the environment variable OVERDRIVE_BLEND__CONTENT: must be a number",
            "`service.port` = \"http\" in the environment variable OVERDRIVE_SERVICE__PORT: must be a whole number",
        ]
    );
    assert_eq!(
        refused(
            "[engine]\nclock = \"moon\"\nheartbeat = \"soon\"\n",
            &[("SERVICE_PORT", "65536"), ("OVERDRIVE_ENGINE__WORKERS", "-1")]
        ),
        [
            "`engine.clock` = \"moon\" in settings.toml line 2: unknown variant `moon`, expected `wall` or `event`",
            "`engine.heartbeat` = \"soon\" in settings.toml line 3: `soon` is not a duration: expected number at 0",
            "`engine.workers` = -1 in the environment variable OVERDRIVE_ENGINE__WORKERS: must be 0 or more",
            "`service.port` = 65536 in the environment variable SERVICE_PORT: must be 0 to 65535",
        ]
    );
}

/// One case a rule: what is set, and a part of the complaint.
const OUT_OF_RANGE: [(&str, &str); 124] = [
    ("engine.workers = 0", "must be 1 to 256"),
    ("engine.workers = 257", "must be 1 to 256"),
    ("engine.epoch_interval = '0s'", "from 1ms"),
    ("engine.epoch_interval = '500us'", "whole milliseconds"),
    ("engine.tick = '3651d'", "to 3650d"),
    ("engine.epoch_rows = 0", "must be 1 to"),
    ("engine.epochs_in_flight = 0", "must be 1 to"),
    ("engine.state_dir = ''", "must name a folder"),
    ("recovery.stalled_after = '999ms'", "must be 1s or more"),
    ("supervisor.first_pause = '31s'", "must not be longer"),
    ("cluster.processes = 0", "must be 1 to 256"),
    ("cluster.processes = 257", "must be 1 to 256"),
    ("cluster.processes = 2", "hosts must name a file"),
    ("cluster.process = 1", "process must be 0 to processes - 1"),
    ("cluster.secret = 'hunter2'", "16 characters or more"),
    ("privacy.purge_after = '24h'", "must be 1day 3m 4s or more"),
    ("recovery.snapshot_every = '7h'", "two recovery.snapshot_every"),
    ("privacy.audit = ''", "must name a file"),
    ("explore.slots = 101", "must be 0 to 100"),
    ("explore.every = 0", "must be 1 to 500"),
    ("explore.drawn = 0", "must be 1 to 1000"),
    ("explore.shown = 0", "must be 1 to 1000000"),
    ("cold.n0 = -1.0", "from 0 to 1000000"),
    ("cold.collaborative = -0.1", "from 0 to 1000000"),
    ("log.partitions = 0", "must be 1 to 1024"),
    ("log.segment_bytes = 10", "must be 1024 or more"),
    ("kafka.brokers = ''", "host:port"),
    ("kafka.brokers = 'a:1,b'", "host:port"),
    ("kafka.brokers = 'a:0'", "host:port"),
    ("kafka.events_topic = 'a b'", "letters, digits"),
    ("kafka.events_topic = 'overdrive.items'", "different topics"),
    ("kafka.partitions = 0", "must be 1 to"),
    ("kafka.replication = 0", "must be 1 to"),
    ("kafka.topics_every = '50ms'", "100ms or more"),
    ("kafka.queued_max_kbytes = 0", "must be 1 to"),
    ("kafka.fetch_wait_max = '6m'", "5m or less"),
    ("kafka.security = 'tls'", "unknown variant `tls`, expected one of `plaintext`, `ssl`"),
    ("kafka.ca = 'ca.pem'", "which is not asked for"),
    ("kafka.sasl_mechanism = 'GSSAPI'", "unknown variant `GSSAPI`"),
    ("kafka.username = 'a'", "sasl_… needs a user; others have none"),
    ("kafka.password = 'hunter2'", "sasl_… needs one of password and password_file"),
    ("kafka.password_file = 'a'", "sasl_… needs one of password and password_file"),
    ("fluvio.endpoint = 'here'", "host:port"),
    ("fluvio.events_topic = 'overdrive.events'", "small letters, digits and dashes"),
    ("fluvio.items_topic = '-items'", "none at an end"),
    ("fluvio.users_topic = 'overdrive-items'", "different topics"),
    ("fluvio.partitions = 0", "must be 1 to"),
    ("fluvio.replication = 0", "must be 1 to"),
    ("fluvio.timeout = '0s'", "from 1ms"),
    ("store.prefix = 'a{b'", "without braces"),
    ("store.user_ttl = '0s'", "from 1ms"),
    ("store.tombstone_ttl = '59s'", "must be 1m or more"),
    ("store.max_dirty_keys = 0", "must be 1 or more"),
    ("redis.url = 'localhost:6379'", "redis://"),
    ("redis.ca = 'ca.pem'", "which is not asked for"),
    ("redis.pipeline = 0", "must be 1 to"),
    ("ledger.records_per_user = 0", "must be 1 or more"),
    ("ledger.history_per_user = 0", "must be 1 or more"),
    ("ledger.events_per_minute = 0", "must be 1 or more"),
    ("ledger.lateness = '0s'", "from 1ms"),
    ("signals.prior_ctr = 1.5", "from 0 to 1"),
    ("signals.prior_engagement = -0.1", "from 0 to 1"),
    ("signals.prior_strength = 0", "above 0"),
    ("weights.like = nan", "must be a number"),
    ("weights.like = inf", "must be a number"),
    ("interests.short_half_life = '8d'", "must not be longer"),
    ("interests.kept = 0", "must be 1 to"),
    ("interests.signup_weight = -1", "from 0"),
    ("neighbours.reach = 0", "must be 1 to"),
    ("neighbours.kept = 0", "must be 1 to"),
    ("neighbours.damping = -1", "from 0"),
    ("trending.kept = 1001", "must be 1 to 1000"),
    ("near.kept = 0", "must be 1 to 1000"),
    ("store.near_ttl = '11h'", "must be 12h or more"),
    ("store.card_ttl = '11h'", "must be 12h or more"),
    ("slates.kept = 501", "must be 1 to 500"),
    ("slates.candidates = 0", "must be 1 to"),
    ("slates.neighbours_from = 501", "must be 0 to 500"),
    ("slates.fresh = 10001", "must be 0 to"),
    ("slates.near = 10001", "must be 0 to"),
    ("slates.busy_refreshes = 0", "above 0"),
    ("slates.author_decay = 1.1", "from 0 to 1"),
    ("slates.category_floor = -1", "from 0 to 1"),
    ("blend.content = -1", "from 0"),
    ("learn.per_source = 0", "must be 1 to"),
    ("learn.links = 0", "must be 1 to"),
    ("learn.linear_rate = -1", "from 0"),
    ("learn.hidden_rate = 11", "from 0 to 10"),
    ("learn.share = 1.5", "from 0 to 1"),
    ("learn.busy_share = -1", "from 0 to 1"),
    ("learn.late = '0s'", "from 1ms"),
    ("ranker.shadow = 'lr-1'", "name its folder"),
    ("ranker.shadow_share = 1.5", "from 0 to 1"),
    ("ranker.registry = 'models'", "learn.enabled = true keeps"),
    ("flags.ml_recommendations = 1.5", "from 0 to 1"),
    ("flags.personalized_feed = -0.1", "from 0 to 1"),
    ("flags.engagement_ranking = nan", "from 0 to 1"),
    ("factors.alpha = 0.5", "from 1 to"),
    ("factors.reg = 0", "from 0.001"),
    ("factors.history = 0", "must be 1 to"),
    ("factors.sweeps = 101", "must be 1 to 100"),
    ("factors.rounds = 1025", "must be 1 to 1024"),
    ("factors.kept = 0", "must be 1 to"),
    ("changes.max_bytes = 1", "must be 1024 or more"),
    ("service.bind = 'here'", "IP address"),
    ("service.threads = 0", "must be 1 to 256"),
    ("service.feeds_limit = 0", "must be 1 to 1000"),
    ("service.exclude_limit = 0", "must be 1 to 10000"),
    ("service.candidates_limit = 0", "must be 1 to 10000"),
    ("service.connections = 0", "must be 1 or more"),
    ("service.default_k = 501", "default_k must be 1 to max_k"),
    ("service.store_timeout = '10s'", "store_timeout must be shorter than request_timeout"),
    ("service.max_id_bytes = 257", "must be 1 to 256"),
    ("metrics.bind = ''", "IP address"),
    ("metrics.port = 8088", "different ports"),
    ("metrics.port = 50051", "different ports"),
    ("service.grpc_port = 8088", "different ports"),
    ("logging.filter = 'a=b=c'", "must be a level"),
    ("access.token_burst = 0", "must be 1 or more"),
    ("access.address_burst = 0", "must be 1 or more"),
    ("access.tls_cert = 'cert.pem'", "must both name a file"),
    ("access.client_ca = 'ca.pem'", "clients show a certificate"),
    ("access.audit = ''", "must name a file"),
    ("logging.format = 'xml'", "one of text, json"),
];

#[test]
fn every_rule_refuses_and_names_the_key() {
    for (setting, allowed) in OUT_OF_RANGE {
        let problems = refused(setting, &[]);
        let key = setting.split(' ').next().expect("a key");
        let named = problems.len() == 1 && problems[0].contains(&format!("`{key}` = ")) && problems[0].contains(allowed);
        assert!(named && problems[0].contains("settings.toml line 1"), "{setting}: {problems:?}");
    }
}

#[test]
fn rules_over_several_settings_name_them_all() {
    let nothing = "blend = { content = 0, collaborative = 0, real_time = 0, interests = 0, freshness = 0 }";
    let problems = refused(nothing, &[]);
    assert!(problems.len() == 1 && problems[0].ends_with("(settings.toml line 1): their sum must be above 0"), "{problems:?}");
    let both = refused("ranker = { model = 'a', registry = 'b' }\nlearn = { enabled = true }", &[]);
    assert!(both.len() == 1 && both[0].ends_with("not both"), "{both:?}");
    let none = "slates = { neighbours = 0, interests = 0, trending = 0, fresh = 0 }";
    assert!(refused(none, &[])[0].ends_with("one of them must be above 0"));
    load("slates = { neighbours = 0, interests = 0, trending = 1, fresh = 0 }", &[]).expect("one source is enough");
    load("ledger.ahead = '0s'", &[]).expect("a clock may be trusted to the millisecond");
}

#[test]
fn a_surface_is_refused_by_its_name() {
    let why = |about: &str| refused(&format!("[[surfaces.list]]\nname = 'deep'\n{about}"), &[]).join(" ");
    for (about, says) in [
        ("kept = 0", "kept must be 1 to 500"),
        ("candidates = 0", "candidates must be 1 to 10000"),
        ("neighbours = 10001", "must be 0 to 10000"),
        ("near = 10001", "must be 0 to 10000"),
        ("only = { within_km = 0 }", "within_km must be"),
        ("only = { within_km = 20041 }", "within_km must be"),
        ("neighbours = 0\ninterests = 0\ntrending = 0\nfresh = 0", "must be above 0"),
        ("author_floor = 1.5", "numbers from 0 to 1"),
        ("blend = { content = -1 }", "weights of its blend"),
        ("blend = { }", "the sum of its blend"),
        ("only = { max_age = '0s' }", "must be above 0"),
        ("only = { min_quality = 2.0 }", "min_quality must be a number from 0 to 1"),
        ("only = { colour = 'red' }", "colour"),
    ] {
        let why = why(about);
        assert!(why.contains(says) && why.contains("surfaces"), "{about}: {why}");
    }
    for name in ["home", "near", "for-you", "Deep", ""] {
        let why = refused(&format!("[[surfaces.list]]\nname = '{name}'"), &[]).join(" ");
        assert!(why.contains("its name must be"), "{name}: {why}");
    }
    let twice = refused("[[surfaces.list]]\nname = 'a'\n[[surfaces.list]]\nname = 'a'", &[]).join(" ");
    assert!(twice.contains("different names"), "{twice}");
    load("[[surfaces.list]]\nname = 'deep'\nkept = 5\nblend = { freshness = 1 }\nonly = { max_age = '7d' }", &[])
        .expect("a surface");
}

/// The settings of an experiment, with this in it.
fn experiment(about: &str, arms: &str) -> String {
    format!("[[experiments.list]]\n{about}\narms = [{arms}]\n")
}

const GOOD: &str = "name = 'first'\nrollout = 0.1";
const ARMS: &str = "{ name = 'a', weight = 1, ranks = 'blend' }, { name = 'b', weight = 0.5, ranks = 'blend' }";

#[test]
fn experiments_are_read_from_a_file_or_a_variable() {
    let config = load(&experiment(GOOD, ARMS), &[]).expect("allowed");
    let first = &config.recommend.experiments.list[0];
    assert_eq!((first.name.as_str(), first.rollout, first.arms[1].weight), ("first", 0.1, 0.5));
    let list = format!("[{{ name = 'first', rollout = 0.1, arms = [{ARMS}] }}]");
    assert_eq!(load("", &[("OVERDRIVE_EXPERIMENTS__LIST", &list)]), Ok(config.clone()));
    let printed = toml::to_string(&config).expect("settings are TOML");
    assert_eq!(load(&printed, &[]), Ok(config));
    let ranks = |ranks: &str| experiment(GOOD, &ARMS.replacen("blend", ranks, 1));
    load(&format!("{}[learn]\nenabled = true\n[ranker]\nregistry = 'r'\n", ranks("lr-1")), &[]).expect("a version");
    load(&format!("{}[learn]\nenabled = true\n[ranker]\nmodel = 'm.onnx'\n", ranks("model")), &[]).expect("a model");
    load(&format!("{}[learn]\nenabled = true\n", ranks("fixed")), &[]).expect("what it would be without learning");
}

#[test]
fn experiments_that_make_no_sense_are_refused() {
    let many = format!("{ARMS}, {{ name = 'a', weight = 1, ranks = 'blend' }}");
    let cases = [
        (experiment("name = 'First'\nrollout = 0.1", ARMS), "`First`: its name must be 1 to 64 small letters"),
        (experiment("name = 'first'\nrollout = 1.5", ARMS), "`first`: its rollout must be a number from 0 to 1"),
        (experiment("name = 'first'\nrollout = nan", ARMS), "rollout must be a number from 0 to 1"),
        (experiment("name = 'first'", ARMS), "missing field `rollout`"),
        (experiment("name = 'first'\nrollout = 1\nshare = 1", ARMS), "unknown field `share`"),
        (experiment(GOOD, &ARMS.replace("weight = 1", "weigth = 1")), "unknown field `weigth`; did you mean `weight`?"),
        (experiment(GOOD, "{ name = 'a', weight = 1, ranks = 'blend' }"), "must have 2 to 16 arms"),
        (experiment(GOOD, &many), "its arms must have different names"),
        (experiment(GOOD, &ARMS.replace("'b'", "'b:c'")), "names of its arms must be"),
        (experiment(GOOD, &ARMS.replace("0.5", "0")), "weights of its arms must be numbers above 0"),
        (experiment(GOOD, &ARMS.replace("0.5", "inf")), "weights of its arms must be numbers above 0"),
        (experiment(GOOD, &ARMS.replacen("blend", "lr-1", 1)), "a version in the registry: name its folder"),
        (experiment(GOOD, &ARMS.replacen("blend", "model", 1)), "needs a model or a registry"),
        (experiment(GOOD, &ARMS.replacen("blend", "fixed", 1)), "say blend instead of fixed"),
        (experiment(GOOD, ARMS) + &experiment(GOOD, ARMS), "experiments must have different names"),
        ("experiments.list = 'first'\n".to_string(), "must be a list"),
    ];
    each_is_refused(&cases);
    let soon = experiment(GOOD, ARMS) + "[store]\ntrending_ttl = '11h'\n";
    assert!(
        refused(&soon, &[])[0].ends_with("with experiments it must be 12h or more: sums that do not change are told every 6h")
    );
    assert!(refused("", &[("OVERDRIVE_EXPERIMENTS__LIST", "[first")])[0].contains("must be a list"));
}

/// One complaint of each, which names the list, where it stands, and what is wrong.
fn each_is_refused(cases: &[(String, &str)]) {
    for (text, says) in cases {
        let problems = refused(text, &[]);
        let named = problems.len() == 1 && problems[0].contains("`experiments.list` = ") && problems[0].contains(says);
        assert!(named && problems[0].contains("settings.toml line 1"), "{says}: {problems:?}");
    }
}

#[test]
fn c29_cohorts_are_read_and_those_that_make_no_sense_refused() {
    let of = |cohort: &str| experiment(&format!("{GOOD}\ncohort = {cohort}"), ARMS);
    let good = "{ languages = ['de'], cities = ['Munich'], interests = ['jazz', '#blues'], users = ['u1', 'u2'] }";
    let config = load(&of(good), &[]).expect("allowed");
    let list = &config.recommend.experiments.list;
    let cities = list[0].cohort.params().cities.clone();
    assert_eq!((cities, list[0].cohort.whom().and_then(|whom| whom.users)), (Some(vec!["Munich".to_string()]), Some(2)));
    let printed = toml::to_string(&config).expect("settings are TOML");
    assert_eq!(load(&printed, &[]), Ok(config));
    let everybody = load(&of("{ }"), &[]).expect("nothing is asked");
    assert!(everybody.recommend.experiments.list[0].cohort.is_everybody());
    assert_eq!(load(&experiment(GOOD, ARMS), &[]), Ok(everybody));
    let many = (0..65).map(|n| format!("'l{n}'")).collect::<Vec<_>>().join(", ");
    let cases = [
        ("{ languages = [] }", "`first`: languages of its cohort must have a name; leave languages out to let everybody through"),
        ("{ users = [] }", "users of its cohort must have a name"),
        ("{ langages = ['de'] }", "unknown field `langages`; did you mean `languages`?"),
        ("{ country = ['de'] }", "unknown field `country`, expected one of `languages`, `cities`, `interests`, `users`"),
        ("{ languages = 'de' }", "invalid type: string \"de\", expected a sequence"),
        ("{ users = [7] }", "invalid type: integer `7`, expected a string"),
        ("{ languages = ['de', 'en', 'de'] }", "languages of its cohort must be different, `de` stands twice"),
        ("{ cities = ['Munich', 'munich'] }", "cities of its cohort must be different, `munich` stands twice"),
        ("{ cities = [' Munich'] }", "cities of its cohort: ` Munich` must be a name without blanks around it"),
        ("{ interests = [''] }", "interests of its cohort: `` must be a name"),
        ("{ interests = ['tag:'] }", "interests of its cohort: `tag:` has no name"),
        (&format!("{{ languages = [{many}] }}"), "languages of its cohort must be 64 at most"),
    ];
    each_is_refused(&cases.map(|(cohort, says)| (of(cohort), says)));
    // another mistake says nothing of who stands in the settings
    let why = load(&of("{ languages = [], users = ['secret-u1', 'secret-u2'] }"), &[]).expect_err("refused").to_string();
    assert!(why.contains("2 ids") && !why.contains("secret"), "{why}");
}

#[test]
fn no_password_is_ever_shown() {
    let secret = "hunter2";
    let config = load("", &[("REDIS_URL", "redis://app:hunter2@h")]).expect("allowed");
    assert_eq!(config.redis.url, "redis://app:hunter2@h", "kept for the connection");
    let shown = format!("{config:?} {config:#?} {:?} {:?}", config.settings(), config.changed());
    assert!(!shown.contains(secret) && shown.contains("redis://app:***@h"), "{shown}");
    let config = load("cluster.secret = 'hunter2 and hunter3'", &[]).expect("allowed");
    let shown = format!("{config:?} {:?} {:?} {:?}", config.cluster, config.settings(), config.changed());
    assert!(!shown.contains(secret) && shown.contains("***"), "{shown}");
    let sasl = "kafka = { security = 'sasl_plaintext', sasl_mechanism = 'PLAIN', username = 'app', password = 'hunter2' }";
    let config = load(sasl, &[]).expect("allowed");
    assert_eq!(config.kafka.password.reveal(), secret, "kept for the connection");
    let shown = format!("{config:?} {:?} {:?} {:?}", config.kafka, config.settings(), config.changed());
    assert!(!shown.contains(secret) && shown.contains("***"), "{shown}");
    for text in [
        "cluster.secret = 'hunter2'",
        "kafka.password = 'hunter2'",
        "kafka.password = ['hunter2']",
        "redis.url = ['redis://app:hunter2@h']",
        "redis.url = 'http://app:hunter2@h'",
        "redis.url = 'redis://app:hunter2@h' junk",
        "redis.url = \"redis://app:hunter2@h\nx",
    ] {
        let problems = refused(text, &[]);
        assert!(!problems.concat().contains(secret), "{problems:?}");
    }
    assert!(!refused("", &[("REDIS_URL", "app:hunter2@h")]).concat().contains(secret));
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let missing = Config::load(Some(Path::new("no/such.toml")), std::iter::empty()).expect_err("not there").to_string();
    assert!(missing.starts_with("cannot read the configuration file no/such.toml: "), "{missing}");
    assert!(missing.ends_with("name another with --config"), "{missing}");
    let env = [("OVERDRIVE_CONFIG".to_string(), "no/other.toml".to_string())];
    let missing = Config::load(None, env.into_iter()).expect_err("not there").to_string();
    assert!(missing.contains("no/other.toml"), "{missing}");
    let broken = refused("[engine]\nworkers = = 2\n", &[]);
    assert!(broken[0].starts_with("settings.toml line 2 is not TOML: "), "{broken:?}");
    let twice = refused("[engine]\nworkers = 1\nworkers = 2\n", &[]);
    assert!(twice[0].starts_with("settings.toml line 3 is not TOML: duplicate key"), "{twice:?}");
}

/// Runs the binary in an empty folder with nothing but this environment.
fn overdrive(in_folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
    command.args(args).env_clear().envs(env.iter().copied()).current_dir(in_folder).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn the_binary_answers_with_the_right_exit_code() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = |args: &[&str], env: &[(&str, &str)]| overdrive(dir.path(), args, env);

    let fine = run(&["config", "check"], &[]);
    let settings = Config::defaults().settings().len();
    assert_eq!(text(&fine.stdout), format!("ok: {settings} settings, 0 changed from the defaults\n"));
    assert_eq!(fine.status.code(), Some(0));

    std::fs::write(dir.path().join("overdrive.toml"), "[engine]\nworkers = 3\n").expect("writable");
    std::fs::write(dir.path().join("other.toml"), "[engine]\nworkers = 5\n").expect("writable");
    let changed = |args: &[&str], env: &[(&str, &str)]| {
        text(&run(&[args, &["config", "print", "--changed", "--env"]].concat(), env).stdout)
    };
    assert_eq!(changed(&[], &[]), "OVERDRIVE_ENGINE__WORKERS=3\n", "./overdrive.toml is read");
    assert_eq!(changed(&[], &[("OVERDRIVE_CONFIG", "other.toml")]), "OVERDRIVE_ENGINE__WORKERS=5\n");
    assert_eq!(changed(&["--config", "overdrive.toml"], &[("OVERDRIVE_CONFIG", "other.toml")]), "OVERDRIVE_ENGINE__WORKERS=3\n");

    let wrong = run(&["config", "check"], &[("OVERDRIVE_ENGINE__WORKERS", "0")]);
    assert_eq!(wrong.status.code(), Some(2), "a wrong setting");
    assert!(text(&wrong.stderr).starts_with("overdrive: `engine.workers` = 0 (the environment variable"), "{wrong:?}");
    assert_eq!(run(&["fly"], &[]).status.code(), Some(2), "a wrong command line");
    let flag = run(&["run", "--workers", "0"], &[("OVERDRIVE_ENGINE__WORKERS", "2")]);
    assert_eq!(flag.status.code(), Some(2), "a flag is a setting");
    assert!(text(&flag.stderr).starts_with("overdrive: `engine.workers` = 0 (the flag --workers)"), "{flag:?}");
    let note = run(&["config", "check"], &[("OVERDRIVE_CLIENT_BASE_URL", "x")]);
    assert!(note.status.success() && text(&note.stderr).contains("note: ") && text(&note.stderr).contains("CLIENT_BASE_URL"));

    let none = run(&["doctor", "--ask", &format!("127.0.0.1:{}/livez", closed_port())], &[]);
    assert_eq!(none.status.code(), Some(1), "a failed command");
}

/// A port nobody listens on.
fn closed_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a free port").port()
}

#[test]
fn doctor_finds_a_real_redis_and_misses_one_that_is_not_there() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let server = RedisServer::start_with(&["--requirepass", "hunter2"]);
    // The service's port is another test's business: take a free one.
    let free = closed_port().to_string();
    let url = server.url().replace("://", "://:hunter2@");
    let doctor = |url: &str| {
        let env = [("OVERDRIVE_STORE__KIND", "redis"), ("REDIS_URL", url), ("SERVICE_PORT", &free)];
        let output = overdrive(dir.path(), &["doctor"], &env);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, shown) = doctor(&url);
    assert!(code == Some(0) && shown.contains("✓ redis") && shown.contains("version 7"), "{shown}");
    let (code, shown) = doctor(&url.replace("hunter2", "hunter3"));
    assert!(code == Some(1) && shown.contains("✗ redis") && !shown.contains("hunter3"), "{shown}");
    drop(server);
    let (code, shown) = doctor(&url);
    assert!(code == Some(1) && shown.contains("→ start Redis 7") && !shown.contains("hunter2"), "{shown}");
}

#[cfg(feature = "kafka")]
#[test]
fn doctor_finds_a_real_kafka_and_counts_its_partitions() {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;

    let broker = support::kafka::KafkaBroker::start();
    let brokers = broker.brokers();
    let client: AdminClient<DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &brokers).create().expect("a client");
    let topic = NewTopic::new("overdrive.events", 3, TopicReplication::Fixed(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let made = runtime.block_on(client.create_topics([&topic], &AdminOptions::new())).expect("the broker answers");
    assert!(made.iter().all(Result::is_ok), "{made:?}");

    let dir = tempfile::tempdir().expect("a temporary folder");
    let free = closed_port().to_string();
    let doctor = |create: &str| {
        let env = [
            ("OVERDRIVE_SOURCE__KIND", "kafka"),
            ("OVERDRIVE_KAFKA_BROKERS", brokers.as_str()),
            ("OVERDRIVE_KAFKA__CREATE_TOPICS", create),
            ("SERVICE_PORT", &free),
        ];
        let output = overdrive(dir.path(), &["doctor"], &env);
        (output.status.code(), text(&output.stdout))
    };
    let (code, shown) = doctor("true");
    assert!(code == Some(0) && shown.contains("answers, 1 broker(s)") && shown.contains("overdrive.events (3)"), "{shown}");
    assert!(shown.contains("missing: overdrive.items, overdrive.users, overdrive.control"), "{shown}");
    let (code, shown) = doctor("false");
    assert!(code == Some(1) && shown.contains("✗ kafka topics"), "{shown}");
}

#[cfg(feature = "onnx")]
#[test]
fn doctor_loads_the_real_onnx_runtime() {
    let named = std::env::var("ORT_DYLIB_PATH").unwrap_or_default();
    assert!(Path::new(&named).is_file(), "ORT_DYLIB_PATH names no library: run `make test`, which gets it");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let free = closed_port().to_string();
    for (variable, path, code, found) in [
        ("ORT_DYLIB_PATH", named.as_str(), 0, "✓ onnx runtime"),
        ("OVERDRIVE_ONNX__LIBRARY", named.as_str(), 0, "✓ onnx runtime"),
        ("OVERDRIVE_ONNX__LIBRARY", "none.so", 1, "✗ onnx runtime"),
    ] {
        let output = overdrive(dir.path(), &["doctor"], &[(variable, path), ("SERVICE_PORT", &free)]);
        let shown = text(&output.stdout);
        assert!(output.status.code() == Some(code) && shown.contains(found), "{variable}={path}: {shown}");
    }
}
