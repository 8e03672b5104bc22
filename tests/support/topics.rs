//! The topics of a real broker as what a scene's stream lies in.

use overdrive::model::Positions;
use overdrive::sources::kafka::{self, KafkaAppender, KafkaSource};
use overdrive::sources::{Appender, KafkaParams, Source};

use super::input::{Append, Input, Records};
use super::kafka::KafkaBroker;
use super::until;

/// The topics of a broker.
pub struct KafkaInput {
    /// `None`: it is shared, and nobody ends it.
    broker: Option<KafkaBroker>,
    pub params: KafkaParams,
}

impl KafkaInput {
    /// On a broker of its own.
    pub fn start() -> Self {
        let broker = KafkaBroker::start();
        Self { params: broker.params("own"), broker: Some(broker) }
    }

    /// On the broker that all tests of a binary share, under topics of this name.
    pub fn shared(test: &str) -> Self {
        Self { broker: None, params: KafkaBroker::shared().params(test) }
    }

    fn broker(&mut self) -> &mut KafkaBroker {
        self.broker.as_mut().expect("it is not shared")
    }
}

impl Input for KafkaInput {
    fn appender(&self) -> Append {
        let appender = KafkaAppender::open(&self.params).expect("the broker answers");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        // what was refused is sent again, as whoever heard of it would: a record may lie there twice, as any other
        let taken = move |role, records: &Records| runtime.block_on(appender.append(role, records.clone())).ok();
        Box::new(move |role, records| drop(until("the broker takes it", || taken(role, &records))))
    }

    fn ends(&self) -> Positions {
        kafka::ends(&self.params).expect("the broker answers")
    }

    fn open(&self, from: Positions) -> Box<dyn Source> {
        Box::new(KafkaSource::open(&self.params, from).expect("the broker has it all"))
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let KafkaParams { brokers, events_topic, items_topic, users_topic, control_topic, dead_topic, .. } = &self.params;
        vec![
            ("OVERDRIVE_SOURCE__KIND", "kafka".to_string()),
            ("OVERDRIVE_KAFKA__BROKERS", brokers.clone()),
            ("OVERDRIVE_KAFKA__PARTITIONS", self.params.partitions.to_string()),
            ("OVERDRIVE_KAFKA__TOPICS_EVERY", "1s".to_string()),
            ("OVERDRIVE_KAFKA__EVENTS_TOPIC", events_topic.clone()),
            ("OVERDRIVE_KAFKA__ITEMS_TOPIC", items_topic.clone()),
            ("OVERDRIVE_KAFKA__USERS_TOPIC", users_topic.clone()),
            ("OVERDRIVE_KAFKA__CONTROL_TOPIC", control_topic.clone()),
            ("OVERDRIVE_KAFKA__DEAD_TOPIC", dead_topic.clone()),
        ]
    }

    fn end(&mut self, cleanly: bool) {
        self.broker().end(cleanly);
    }

    fn start_again(&mut self) {
        self.broker().start_again();
    }
}
