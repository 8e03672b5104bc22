//! A real Apache Kafka broker: one node, KRaft, from the jars that `scripts/fetch-kafka.sh` puts in place.

use overdrive::config::Config;
use overdrive::sources::KafkaParams;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{MISSING, Server, free_port, said, server_dir};

/// A small heap, and no time spent on compiling what runs for seconds.
const QUICK: [&str; 4] = ["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"];

static SHARED: LazyLock<KafkaBroker> = LazyLock::new(KafkaBroker::start);

/// Killed on drop.
pub struct KafkaBroker {
    server: Server,
    dir: PathBuf,
    port: u16,
    doors: Vec<u16>,
}

/// The ways into a broker that is secured, beside the plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Ssl,
    /// Clients must have a certificate.
    Mutual,
    SaslSsl,
    SaslPlaintext,
}

impl Door {
    const ALL: [Self; 4] = [Self::Ssl, Self::Mutual, Self::SaslSsl, Self::SaslPlaintext];

    /// Its name, and the protocol spoken there.
    fn listener(self) -> (&'static str, &'static str) {
        match self {
            Self::Ssl => ("SSL", "SSL"),
            Self::Mutual => ("MUTUAL", "SSL"),
            Self::SaslSsl => ("SASL_SSL", "SASL_SSL"),
            Self::SaslPlaintext => ("SASL_PLAINTEXT", "SASL_PLAINTEXT"),
        }
    }
}

/// What a secured broker has: its certificate with its key in one file, who may come, and whom it knows.
pub struct Guards<'a> {
    pub keystore: &'a Path,
    pub ca: &'a Path,
    pub user: &'a str,
    pub password: &'a str,
}

impl KafkaBroker {
    /// One for all tests of a binary, because it takes seconds to start. Use topics of your own.
    pub fn shared() -> &'static KafkaBroker {
        &SHARED
    }

    /// On free ports, answering.
    pub fn start() -> KafkaBroker {
        Self::start_on(free_port())
    }

    /// As it runs in earnest: the JVM compiles what runs often, which pays within a minute.
    pub fn start_optimised() -> KafkaBroker {
        Self::start_with(free_port(), &["-Xmx1g", "-XX:+UseSerialGC"])
    }

    /// On a given port: for a broker that comes back, empty.
    pub fn start_on(port: u16) -> KafkaBroker {
        Self::start_with(port, &QUICK)
    }

    /// With every door there is, guarded.
    pub fn start_secured(guards: &Guards<'_>) -> KafkaBroker {
        Self::start_guarded(free_port(), &QUICK, Some(guards))
    }

    /// `127.0.0.1:<port>` of a door
    pub fn behind(&self, door: Door) -> String {
        let place = Door::ALL.iter().position(|other| *other == door).expect("it is one of all");
        format!("127.0.0.1:{}", self.doors[place])
    }

    fn start_with(port: u16, machine: &[&str]) -> KafkaBroker {
        Self::start_guarded(port, machine, None)
    }

    fn start_guarded(port: u16, machine: &[&str], guards: Option<&Guards<'_>>) -> KafkaBroker {
        let jars = jars();
        assert!(jars.join(".fetched").exists(), "no kafka jars in {}: {MISSING}", jars.display());
        let class_path = format!("{}/*", jars.display());
        let dir = server_dir();
        let doors: Vec<u16> = guards.iter().flat_map(|_| Door::ALL.map(|_| free_port())).collect();
        let config = configuration(&dir, port, &doors, guards);
        format(&class_path, &config, guards);
        let logging = format!("-Dlog4j.configuration=file:{}", dir.join("log4j.properties").display());
        let args = [machine, &[&logging, "-cp", &class_path, "kafka.Kafka", &config]].concat();
        let server = Server::start(&dir, "java", &args);
        wait_for(port, &dir);
        KafkaBroker { server, dir, port, doors }
    }

    /// Ends it, as a crash would or as one asks it to. Its records stay.
    pub fn end(&mut self, cleanly: bool) {
        self.server.end(if cleanly { "TERM" } else { "KILL" });
    }

    /// Starts it again with the records it has, and waits until it answers.
    pub fn start_again(&mut self) {
        self.server.start_again();
        wait_for(self.port, &self.dir);
    }

    /// `127.0.0.1:<port>`
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The default settings with this broker, and topics that only `test` uses.
    pub fn params(&self, test: &str) -> KafkaParams {
        let mut params = Config::defaults().kafka;
        params.brokers = self.brokers();
        params.partitions = 3;
        for topic in [
            &mut params.events_topic,
            &mut params.items_topic,
            &mut params.users_topic,
            &mut params.control_topic,
            &mut params.slates_topic,
            &mut params.dead_topic,
        ] {
            *topic = format!("{test}.{topic}");
        }
        params
    }
}

fn jars() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("OVERDRIVE_KAFKA_JARS").unwrap_or_else(|| {
        let cache = named("XDG_CACHE_HOME").or_else(|| named("HOME").map(|home| home.join(".cache")));
        cache.expect("HOME is set").join("overdrive").join("kafka")
    })
}

/// Writes the settings; answers the path of the file.
fn configuration(dir: &Path, port: u16, doors: &[u16], guards: Option<&Guards<'_>>) -> String {
    let (controller, data) = (free_port(), dir.join("data"));
    let open = Door::ALL.iter().zip(doors).map(|(door, port)| (door.listener(), port));
    let at: String = open.clone().map(|((name, _), port)| format!(",{name}://127.0.0.1:{port}")).collect();
    let speak: String = open.map(|((name, protocol), _)| format!(",{name}:{protocol}")).collect();
    let guarded = guards.map(guarded).unwrap_or_default();
    let settings = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port}{at},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{at}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{speak}
log.dirs={}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.retention.check.interval.ms=100
num.network.threads=1
num.io.threads=2
background.threads=2
{guarded}",
        data.display()
    );
    let logging = "log4j.rootLogger=WARN, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%p %m (%c)%n
";
    let path = dir.join("server.properties");
    std::fs::write(&path, settings).expect("the folder is ours");
    std::fs::write(dir.join("log4j.properties"), logging).expect("the folder is ours");
    path.to_string_lossy().into_owned()
}

/// The settings of the doors: PEM as it is, one user for every mechanism.
fn guarded(guards: &Guards<'_>) -> String {
    let Guards { keystore, ca, user, password } = guards;
    let (keystore, ca) = (keystore.display(), ca.display());
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let logins = ["sasl_ssl", "sasl_plaintext"].map(|door| {
        let login = format!("listener.name.{door}");
        format!(
            "{login}.plain.sasl.jaas.config={plain} user_{user}=\"{password}\";
{login}.scram-sha-256.sasl.jaas.config={scram}
{login}.scram-sha-512.sasl.jaas.config={scram}
"
        )
    });
    format!(
        "ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
listener.name.mutual.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
{}",
        logins.concat()
    )
}

fn format(class_path: &str, config: &str, guards: Option<&Guards<'_>>) {
    let args = ["-XX:TieredStopAtLevel=1", "-cp", class_path, "kafka.tools.StorageTool", "format", "--ignore-formatted"];
    let id = ["--cluster-id", "b3ZlcmRyaXZlLXRlc3RzMQ", "--config", config];
    let known = guards.iter().flat_map(|guards| {
        let Guards { user, password, .. } = guards;
        ["SCRAM-SHA-256", "SCRAM-SHA-512"]
            .map(|how| ["--add-scram".to_string(), format!("{how}=[name={user},password={password}]")])
    });
    let done = Command::new("java").args(args).args(id).args(known.flatten()).output();
    let done = done.unwrap_or_else(|e| panic!("java is missing ({e}): {MISSING}"));
    assert!(done.status.success(), "kafka's storage cannot be made: {}", String::from_utf8_lossy(&done.stderr));
}

fn wait_for(port: u16, dir: &Path) {
    let mut config = ClientConfig::new();
    // Refused connections are what is waited through here.
    config.set("bootstrap.servers", format!("127.0.0.1:{port}")).set_log_level(RDKafkaLogLevel::Emerg);
    let client: BaseConsumer = config.set("reconnect.backoff.max.ms", "200").create().expect("settings that are known");
    let until = Instant::now() + Duration::from_secs(90);
    while client.fetch_metadata(None, Duration::from_secs(1)).map_or(true, |m| m.brokers().is_empty()) {
        assert!(Instant::now() < until, "kafka does not answer on port {port}:\n{}", said(dir));
        std::thread::sleep(Duration::from_millis(100));
    }
}
