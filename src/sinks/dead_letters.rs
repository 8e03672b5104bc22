//! Records that could not be used, each with its place and the reason: `dead/dead.jsonl` in the state folder, and the topic of
//! dead letters where Kafka is used. Letters are written when their epoch is complete, so a replay may repeat the last ones.

use serde::Serialize;
use std::path::Path;

use super::jsonl::{Jsonl, Undelivered};
#[cfg(feature = "kafka")]
use super::topic::Topic;
use crate::model::Dead;
use crate::sources::KafkaParams;

/// The file is set aside at this size; one old one is kept.
const MAX_BYTES: u64 = 64 << 20;

/// Where dead letters go.
pub struct DeadLetters {
    file: Jsonl,
    #[cfg(feature = "kafka")]
    topic: Option<Topic>,
}

/// One letter.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    reason: &'a str,
    sample: &'a str,
    epoch: u64,
}

impl DeadLetters {
    /// In `state_dir`, and in the dead topic of `kafka` if it is given.
    pub fn open(state_dir: &Path, kafka: Option<&KafkaParams>) -> Result<Self, Undelivered> {
        let file = Jsonl::open(&state_dir.join("dead").join("dead.jsonl"), MAX_BYTES)?;
        #[cfg(feature = "kafka")]
        return Ok(Self { file, topic: kafka.map(|kafka| Topic::open(kafka, &kafka.dead_topic)).transpose()? });
        #[cfg(not(feature = "kafka"))]
        match kafka {
            Some(_) => Err(Undelivered("dead letters to Kafka need a build with the feature `kafka`".to_string())),
            None => Ok(Self { file }),
        }
    }

    /// Writes the letters of an epoch.
    pub fn write<'a>(&mut self, epoch: u64, letters: impl Iterator<Item = &'a Dead>) -> Result<(), Undelivered> {
        let mut any = false;
        for dead in letters {
            self.write_one(epoch, dead)?;
            any = true;
        }
        if any { self.file.flush() } else { Ok(()) }
    }

    fn write_one(&mut self, epoch: u64, dead: &Dead) -> Result<(), Undelivered> {
        let Dead { topic, partition, offset, reason, sample } = dead;
        let line = Line { topic, partition: *partition, offset: *offset, reason, sample, epoch };
        self.file.append(&line)?;
        #[cfg(feature = "kafka")]
        if let Some(topic) = &self.topic {
            let text = serde_json::to_vec(&line).expect("a struct of texts and numbers is JSON");
            topic.send(&format!("{}/{partition}/{offset}", line.topic), &text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_has_its_place_and_its_reason() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let mut letters = DeadLetters::open(dir.path(), None).expect("it opens");
        let dead = Dead { topic: "t".into(), partition: 1, offset: 2, reason: "no `user_id`".into(), sample: "{\n\"".into() };
        letters.write(7, [&dead, &Dead { offset: 3, ..dead.clone() }].into_iter()).expect("there is room");
        let text = std::fs::read_to_string(dir.path().join("dead/dead.jsonl")).expect("it is there");
        let line = |offset| {
            let place = format!(r#""topic":"t","partition":1,"offset":{offset}"#);
            format!("{{{place},\"reason\":\"no `user_id`\",\"sample\":\"{{\\n\\\"\",\"epoch\":7}}\n")
        };
        assert_eq!(text, line(2) + &line(3));
    }
}
