//! Kafka behind TLS and behind passwords: the contract of sources at every door of a real broker, and who is sent away, how soon and
//! with what words.

use overdrive::model::{Names, Secret};
use overdrive::sinks::changes;
use overdrive::sources::kafka::{KafkaAppender, KafkaSource, topics};
use overdrive::sources::{KafkaParams, Mechanism, Security};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use super::support::authority::{Authority, Files};
use super::support::kafka::{Door, Guards, KafkaBroker};
use super::*;

const USER: &str = "engine";
const PASSWORD: &str = "hunter-of-the-engine";

/// A broker with every door, and the files that clients need.
struct Guarded {
    broker: KafkaBroker,
    files: Files,
}

static GUARDED: LazyLock<Guarded> = LazyLock::new(|| {
    let (files, authority) = (Files::new(), Authority::new());
    let (ours, theirs) = (authority.issue("127.0.0.1"), authority.issue("client"));
    let ca = files.put("ca.pem", &authority.pem);
    let keystore = files.put("server.pem", &(ours.key + &ours.certificate));
    files.put("client.pem", &theirs.certificate);
    files.put("client.key", &theirs.key);
    files.put("password", &format!("{PASSWORD}\n"));
    files.put("stranger.pem", &Authority::new().pem);
    let guards = Guards { keystore: &keystore, ca: &ca, user: USER, password: PASSWORD };
    Guarded { broker: KafkaBroker::start_secured(&guards), files }
});

/// The settings that open a door.
fn params(door: Door, mechanism: Mechanism, test: &str) -> KafkaParams {
    let Guarded { broker, files } = &*GUARDED;
    let mut params = broker.params(test);
    params.brokers = broker.behind(door);
    (params.security, params.sasl_mechanism) = (protocol(door), mechanism);
    if params.security.is_encrypted() {
        params.ca = files.path("ca.pem");
    }
    if door == Door::Mutual {
        (params.cert, params.key) = (files.path("client.pem"), files.path("client.key"));
    }
    if params.security.is_sasl() {
        (params.username, params.password) = (USER.into(), PASSWORD.to_string().into());
    }
    params
}

fn protocol(door: Door) -> Security {
    match door {
        Door::Ssl | Door::Mutual => Security::Ssl,
        Door::SaslSsl => Security::SaslSsl,
        Door::SaslPlaintext => Security::SaslPlaintext,
    }
}

struct Behind {
    params: KafkaParams,
    appender: KafkaAppender,
    runtime: tokio::runtime::Runtime,
}

impl Behind {
    fn new(params: KafkaParams) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        Self { appender: KafkaAppender::open(&params).expect("opens"), params, runtime }
    }
}

impl Case for Behind {
    fn append(&self, role: Role, records: Sent) -> Vec<Place> {
        self.runtime.block_on(self.appender.append(role, records)).expect("appends")
    }

    fn open(&self, start: Positions) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(KafkaSource::open(&self.params, start)?))
    }
}

#[test]
fn c37_kafka_keeps_the_contract_over_tls() {
    keeps_the_contract(&Behind::new(params(Door::Ssl, Mechanism::Plain, "tls")));
}

#[test]
fn c37_kafka_keeps_the_contract_over_tls_to_clients_with_certificates() {
    keeps_the_contract(&Behind::new(params(Door::Mutual, Mechanism::Plain, "mutual")));
}

#[test]
fn c37_kafka_keeps_the_contract_with_scram_over_tls_and_a_password_in_a_file() {
    let mut params = params(Door::SaslSsl, Mechanism::Scram256, "scram");
    (params.password, params.password_file) = (Secret::default(), GUARDED.files.path("password"));
    keeps_the_contract(&Behind::new(params));
}

#[test]
fn c37_every_mechanism_opens_every_door_that_asks() {
    for door in [Door::SaslSsl, Door::SaslPlaintext] {
        for mechanism in [Mechanism::Plain, Mechanism::Scram256, Mechanism::Scram512] {
            let (brokers, _) = topics(&params(door, mechanism, "any")).unwrap_or_else(|e| panic!("{door:?} {mechanism:?}: {e}"));
            assert_eq!(brokers, 1);
        }
    }
}

/// What goes out goes the same way.
#[test]
fn c37_changes_of_slates_are_told_behind_the_same_door() {
    let case = Behind::new(params(Door::SaslSsl, Mechanism::Scram256, "changes"));
    let kept = changes::Params { kind: changes::Kind::Kafka, max_bytes: 1 << 20 };
    let names = Arc::new(Names::default());
    let (user, item) = (names.user("u1").expect("no collision"), names.item("i1").expect("no collision"));
    let mut feed = changes::open(&kept, Path::new("unused"), &case.params, names).expect("opens");
    let change = overdrive::model::Change::Slate {
        user,
        surface: overdrive::model::Surface::HOME,
        slate: None,
        entered: vec![item],
        left: vec![],
    };
    let epoch = overdrive::model::Epoch { number: 7, ..overdrive::model::Epoch::default() };
    feed.slates(&epoch, &[change]).expect("queued");
    drop(feed); // settles what is queued
    // Read as the topic of events would be: under the same user, through the same door.
    let mut read_back = case.params.clone();
    (read_back.events_topic, read_back.slates_topic) = (read_back.slates_topic, read_back.events_topic);
    let mut source = KafkaSource::open(&read_back, Positions::new()).expect("opens");
    let told = read(&mut source, 1, 10);
    let line = String::from_utf8(told[0].payload.clone().expect("a line").to_vec()).expect("text");
    assert!(line.contains(r#""user_id":"u1""#) && line.contains(r#""entered":["i1"]"#), "{line}");
}

const CERTIFICATES: &str = "check [kafka] security, ca, cert and key";
const LOGIN: &str = "check [kafka] sasl_mechanism, username and password";
const AWAY: &str = "check [kafka] brokers and security";

/// Whoever is sent away hears why, where and what to do, before anybody's patience ends.
#[test]
fn c37_who_is_sent_away_is_told_why_and_what_to_do() {
    let files = &GUARDED.files;
    let of = |door, mechanism, change: &dyn Fn(&mut KafkaParams)| {
        let mut params = params(door, mechanism, "away");
        change(&mut params);
        params
    };
    let wrong = || Secret::from("hunter-of-nobody".to_string());
    let named = |at: &str| at.replace("127.0.0.1", "localhost");
    let cases = [
        (of(Door::SaslSsl, Mechanism::Scram256, &|p| p.password = wrong()), LOGIN),
        (of(Door::SaslPlaintext, Mechanism::Plain, &|p| p.password = wrong()), LOGIN),
        (of(Door::SaslPlaintext, Mechanism::Scram512, &|p| p.username = "nobody".into()), LOGIN),
        (of(Door::Ssl, Mechanism::Plain, &|p| p.ca = files.path("stranger.pem")), CERTIFICATES),
        (of(Door::Ssl, Mechanism::Plain, &|p| p.ca = PathBuf::new()), CERTIFICATES),
        (of(Door::Ssl, Mechanism::Plain, &|p| p.brokers = named(&p.brokers)), CERTIFICATES),
        (of(Door::SaslSsl, Mechanism::Scram256, &|p| p.ca = files.path("stranger.pem")), CERTIFICATES),
        (of(Door::Mutual, Mechanism::Plain, &|p| (p.cert, p.key) = Default::default()), CERTIFICATES),
        (of(Door::Ssl, Mechanism::Plain, &|p| p.brokers = GUARDED.broker.brokers()), AWAY),
        (of(Door::Ssl, Mechanism::Plain, &|p| (p.security, p.ca) = (Security::Plaintext, PathBuf::new())), AWAY),
    ];
    // Some take all the patience there is.
    std::thread::scope(|scope| cases.iter().for_each(|(params, says)| _ = scope.spawn(|| is_sent_away(params, says))));
}

fn is_sent_away(params: &KafkaParams, says: &str) {
    let told = KafkaSource::open(params, Positions::new()).err().unwrap_or_else(|| panic!("{says}: it was let in"));
    let shim = KafkaAppender::open(params).err().unwrap_or_else(|| panic!("{says}: it was let in"));
    for text in [told.to_string(), shim] {
        assert!(text.contains(&params.brokers) && text.contains(says), "{says}: {text}");
        assert!(!text.contains("hunter"), "{text}");
    }
    let passes = says == AWAY;
    assert!(passes || matches!(told, SourceError::Stop(_)), "another try cannot help: {told}");
}

#[test]
fn c37_a_file_of_kafka_that_cannot_be_used_is_named() {
    let says = |door, change: &dyn Fn(&mut KafkaParams)| {
        let mut params = params(door, Mechanism::Plain, "files");
        change(&mut params);
        stop(KafkaSource::open(&params, Positions::new()).map(|s| Box::new(s) as Box<dyn Source>))
    };
    let missing = says(Door::Ssl, &|p| p.ca = "no/such".into());
    assert!(missing.contains("[kafka] ca, no/such: it cannot be read"), "{missing}");
    let no_key = says(Door::Mutual, &|p| p.key = p.cert.clone());
    assert!(no_key.contains("[kafka] key, ") && no_key.contains("no private key in PEM"), "{no_key}");
    let empty = GUARDED.files.put("empty", "\n");
    let nothing = says(Door::SaslSsl, &|p| (p.password, p.password_file) = (Secret::default(), empty.clone()));
    assert!(nothing.contains("[kafka] password_file, ") && nothing.contains("it is empty"), "{nothing}");
}

/// The binary itself, with the password in its environment: let in, sent away, and silent about it.
#[test]
fn c37_doctor_goes_through_the_same_door_and_no_password_is_printed() {
    let dir = tempfile::tempdir().expect("a folder");
    let params = params(Door::SaslSsl, Mechanism::Scram512, "doctor");
    let free = super::support::free_port().to_string();
    let run = |args: &[&str], password: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
        command.env_clear().current_dir(dir.path()).args(args).env("SERVICE_PORT", &free).env("OVERDRIVE_SOURCE__KIND", "kafka");
        command.env("OVERDRIVE_SUPERVISOR__RESTARTS", "0");
        command.env("OVERDRIVE_KAFKA_BROKERS", &params.brokers).env("OVERDRIVE_KAFKA__SECURITY", "sasl_ssl");
        command.env("OVERDRIVE_KAFKA__CA", &params.ca).env("OVERDRIVE_KAFKA__SASL_MECHANISM", "SCRAM-SHA-512");
        command.env("OVERDRIVE_KAFKA__USERNAME", USER).env("OVERDRIVE_KAFKA__PASSWORD", password);
        let output = command.output().expect("the binary runs");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.contains("hunter"), "{said}");
        (output.status.code(), said)
    };
    let (code, said) = run(&["doctor"], PASSWORD);
    assert!(code == Some(0) && said.contains("✓ kafka") && said.contains("answers, 1 broker(s)"), "{said}");
    let (code, said) = run(&["doctor"], "hunter-of-nobody");
    assert!(code == Some(1) && said.contains("✗ kafka") && said.contains("check [kafka] sasl_mechanism"), "{said}");
    let (code, said) = run(&["config", "print"], PASSWORD);
    assert!(code == Some(0) && said.contains("***"), "{said}");
    // The engine does not try again what cannot help.
    let (code, said) = run(&["run"], "hunter-of-nobody");
    assert!(code == Some(78) && said.contains("check [kafka] sasl_mechanism"), "{code:?} {said}");
}
