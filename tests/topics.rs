//! Real topics under a real engine that are not what they were: emptied by retention, with more partitions, deleted and created anew.
//! Nothing is lost or repeated, or the engine stops and says what is gone.
#![cfg(all(feature = "redis", feature = "kafka"))]

#[path = "support/mod.rs"]
mod support;

use overdrive::model::Role;
use overdrive::sources::kafka::create_topics;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::process::{Child, Output, Stdio};
use std::time::Duration;
use support::engines::{Fleet, Scene, Shape, Stage, command, wait_for};
use support::input::{Input, Records};
use support::redis::RedisServer;
use support::topics::KafkaInput;
use support::until;

fn views(from: usize, to: usize) -> Records {
    let view = |i| {
        let (user, at) = (format!("u{}", i % 37), overdrive::model::time::now_ms());
        let payload = format!(r#"{{"user_id":"{user}","item_id":"i{}","type":"view","ts":{at}}}"#, i % 50);
        (user.into(), Some(payload.into()))
    };
    (from..to).map(view).collect()
}

/// Topics, an engine's folder, and a Redis.
struct Case {
    input: KafkaInput,
    dir: tempfile::TempDir,
    redis: RedisServer,
    runtime: tokio::runtime::Runtime,
}

impl Case {
    /// With an engine that has read some hundred events.
    fn read(test: &str) -> (Self, Fleet) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let case = Self {
            input: KafkaInput::shared(test),
            dir: tempfile::tempdir().expect("a folder"),
            redis: RedisServer::start(),
            runtime,
        };
        case.append(views(0, 300));
        let fleet = Fleet::start(case.dir.path(), &case.redis, Shape(1, 1), &settings(&case.input.settings()));
        wait_for(&case.redis, &case.input.ends());
        (case, fleet)
    }

    fn append(&self, events: Records) {
        self.input.appender()(Role::Events, events);
    }

    fn engine(&self) -> std::process::Command {
        command(self.dir.path(), &self.redis, &[], &settings(&self.input.settings()))
    }

    /// What an engine says that must not start.
    fn refused(&self) -> String {
        told(&self.engine().output().expect("it runs"))
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.input.params.brokers).create().expect("a client")
    }

    /// Deletes the topic of events and makes another one of its name, with more records in each partition.
    fn replace(&self) {
        let topic = &self.input.params.events_topic;
        let deleted = self.runtime.block_on(self.admin().delete_topics(&[topic], &AdminOptions::new())).expect("answers");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.input.params.brokers).create().expect("a client");
        until("it is gone", || {
            let known = client.fetch_metadata(None, Duration::from_secs(5)).ok()?;
            known.topics().iter().all(|known| known.name() != topic).then_some(())
        });
        create_topics(&self.input.params).expect("creates");
        self.append(views(0, 900));
    }
}

fn settings<'a>(of: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    of.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// All that was said by one that ended because somebody must do something.
fn told(output: &Output) -> String {
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(78), "{text}");
    text
}

#[test]
fn records_that_retention_took_before_they_were_read_stop_the_start_by_partition_and_range() {
    let (case, fleet) = Case::read("retention");
    fleet.stop();
    let before = case.input.ends();
    case.append(views(300, 600));
    let after = case.input.ends();
    let (topic, mut first) = (&case.input.params.events_topic, TopicPartitionList::new());
    let gone = (before[&(Role::Events, 1)], after[&(Role::Events, 1)]);
    first.add_partition_offset(topic, 1, Offset::Offset(gone.1 as i64)).expect("an offset");
    let deleted = case.runtime.block_on(case.admin().delete_records(&first, &AdminOptions::new())).expect("answers");
    deleted.elements().iter().for_each(|partition| partition.error().expect("deletes"));
    let told = case.refused();
    let says = format!(
        "events/1: offset {} is not in topic {topic}, which holds {}..{}: records {}..{} are gone",
        gone.0, gone.1, gone.1, gone.0, gone.1
    );
    assert!(told.contains(&says), "{says}: {told}");
}

#[test]
fn a_topic_that_was_created_anew_with_as_many_records_stops_the_start() {
    for (test, kill) in [("anew", false), ("anew.after.a.crash", true)] {
        let (case, fleet) = Case::read(test);
        if kill {
            fleet.kill()
        } else {
            fleet.stop()
        };
        case.replace();
        let (told, topic) = (case.refused(), &case.input.params.events_topic);
        let says = format!("what was read is of topic {topic} with the id ");
        assert!(told.contains(&says) && told.contains("deleted and created anew"), "{says}: {told}");
    }
}

#[test]
fn a_topic_that_is_created_anew_while_it_is_read_stops_the_engine() {
    let (case, fleet) = Case::read("anew.meanwhile");
    fleet.stop();
    let running = case.engine().stderr(Stdio::piped()).spawn().expect("it starts");
    let running = Ended(Some(running));
    case.append(views(300, 310));
    wait_for(&case.redis, &case.input.ends());
    case.replace();
    let told = told(&running.wait());
    let topic = &case.input.params.events_topic;
    assert!(told.contains(topic), "{told}");
    let told = case.refused();
    assert!(told.contains(topic), "the next start is refused too: {told}");
}

/// Killed unless it has ended.
struct Ended(Option<Child>);

impl Ended {
    fn wait(mut self) -> Output {
        self.0.take().expect("it is waited for once").wait_with_output().expect("it ends")
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|child| drop(child.kill()));
    }
}

#[test]
fn partitions_that_are_added_while_it_runs_are_read_from_their_first_record() {
    let input = KafkaInput::shared("added");
    let params = input.params.clone();
    let scene = Scene::on(Stage { input: Some(Box::new(input)), redis: RedisServer::start(), batch: 5, settings: &[] }, 1);
    let fleet = scene.start(Shape(2, 1), &[]);
    wait_for(&scene.redis, &scene.input.ends());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &params.brokers).create().expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let more = [NewPartitions::new(&params.events_topic, 5)];
    let made = runtime.block_on(admin.create_partitions(&more, &AdminOptions::new())).expect("answers");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let of_events = || scene.input.ends().keys().filter(|(role, _)| *role == Role::Events).count();
    until("they are there", || (of_events() == 5).then_some(()));
    let mut append = scene.input.appender(); // which knows of them
    append(Role::Events, views(0, 200));
    fleet.0[0].kill_engine();
    append(Role::Events, views(200, 400));
    assert!(scene.input.ends()[&(Role::Events, 4)] > 0);
    eprintln!("two partitions more: {}", scene.close(fleet));
}
