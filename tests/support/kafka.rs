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

static SHARED: LazyLock<KafkaBroker> = LazyLock::new(KafkaBroker::start);

/// Killed on drop.
pub struct KafkaBroker {
    server: Server,
    dir: PathBuf,
    port: u16,
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
        // A small heap, and no time spent on compiling what runs for seconds.
        Self::start_with(port, &["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"])
    }

    fn start_with(port: u16, machine: &[&str]) -> KafkaBroker {
        let jars = jars();
        assert!(jars.join(".fetched").exists(), "no kafka jars in {}: {MISSING}", jars.display());
        let class_path = format!("{}/*", jars.display());
        let dir = server_dir();
        let config = configuration(&dir, port);
        format(&class_path, &config);
        let logging = format!("-Dlog4j.configuration=file:{}", dir.join("log4j.properties").display());
        let args = [machine, &[&logging, "-cp", &class_path, "kafka.Kafka", &config]].concat();
        let server = Server::start(&dir, "java", &args);
        wait_for(port, &dir);
        KafkaBroker { server, dir, port }
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
fn configuration(dir: &Path, port: u16) -> String {
    let (controller, data) = (free_port(), dir.join("data"));
    let settings = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
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
",
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

fn format(class_path: &str, config: &str) {
    let args = ["-XX:TieredStopAtLevel=1", "-cp", class_path, "kafka.tools.StorageTool", "format", "--ignore-formatted"];
    let id = ["--cluster-id", "b3ZlcmRyaXZlLXRlc3RzMQ", "--config", config];
    let done = Command::new("java").args(args).args(id).output();
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
