//! Which topic a name stands for: the id that brokers give a topic when it is created. One that was deleted and created anew has
//! another, whatever offsets it holds.
//!
//! The C library can be asked for it, but its Rust wrapper does not pass the answer on, so this file calls C: every pointer of it is
//! made, used and given back here.

use rdkafka::bindings as c;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::ffi::{CStr, CString};
use std::time::Duration;

use super::{Context, unreachable};
use crate::sources::{KafkaParams, SourceError};

/// The id of a topic, as Kafka's own tools print it; `None` when there is no such topic, or brokers give none (before 2.8).
pub fn id(
    consumer: &BaseConsumer<Context>,
    params: &KafkaParams,
    topic: &str,
    patience: Duration,
) -> Result<Option<String>, SourceError> {
    let name = CString::new(topic).map_err(|_| SourceError::Stop(format!("{topic:?} is no name of a topic")))?;
    Question::new(consumer, &name).ask(patience).map_err(|error| match error {
        None => SourceError::Retry(format!("kafka at {} does not say which topic {topic} is", params.brokers)),
        Some(code) => unreachable(params, &rdkafka::error::KafkaError::MetadataFetch(code.into())),
    })
}

/// What is asked, and where the answer arrives.
struct Question<'a> {
    consumer: &'a BaseConsumer<Context>,
    topics: *mut c::rd_kafka_TopicCollection_t,
    queue: *mut c::rd_kafka_queue_t,
}

/// Whatever arrived.
struct Answer(*mut c::rd_kafka_event_t);

impl<'a> Question<'a> {
    fn new(consumer: &'a BaseConsumer<Context>, name: &CStr) -> Self {
        let mut names = [name.as_ptr()];
        // SAFETY: the list and the name outlive the call, which copies them; the client lives as long as `consumer`.
        unsafe {
            let topics = c::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            Self { consumer, topics, queue: c::rd_kafka_queue_new(consumer.client().native_ptr()) }
        }
    }

    /// The error is what the client said, or nothing when it was silent.
    fn ask(&self, patience: Duration) -> Result<Option<String>, Option<c::rd_kafka_resp_err_t>> {
        let client = self.consumer.client().native_ptr();
        // SAFETY: all three live until the end of this value; without options those of the client hold. A queue that is given up
        // takes its answer with it.
        let answer = unsafe {
            c::rd_kafka_DescribeTopics(client, self.topics, std::ptr::null(), self.queue);
            Answer(c::rd_kafka_queue_poll(self.queue, patience.as_millis() as i32))
        };
        answer.first_id()
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        // SAFETY: both were made by `new` and are used nowhere else.
        unsafe {
            c::rd_kafka_queue_destroy(self.queue);
            c::rd_kafka_TopicCollection_destroy(self.topics);
        }
    }
}

impl Answer {
    fn first_id(&self) -> Result<Option<String>, Option<c::rd_kafka_resp_err_t>> {
        if self.0.is_null() {
            return Err(None);
        }
        // SAFETY: the event is there; what is taken out of it lives as long as it does, and is copied.
        unsafe {
            let error = c::rd_kafka_event_error(self.0);
            let result = c::rd_kafka_event_DescribeTopics_result(self.0);
            if error != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || result.is_null() {
                return Err(Some(error));
            }
            let mut count = 0;
            let topics = c::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            if count == 0 {
                return Ok(None);
            }
            let id = c::rd_kafka_TopicDescription_topic_id(*topics);
            let none = c::rd_kafka_Uuid_most_significant_bits(id) == 0 && c::rd_kafka_Uuid_least_significant_bits(id) == 0;
            // Kafka's tools print the alphabet that may stand in URLs
            let text = || CStr::from_ptr(c::rd_kafka_Uuid_base64str(id)).to_string_lossy().replace('+', "-").replace('/', "_");
            Ok((!none).then(text))
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: it came from the queue and is used nowhere else; nothing is no error.
        unsafe { c::rd_kafka_event_destroy(self.0) }
    }
}
