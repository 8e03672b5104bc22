//! Records that could not be used, each with its place and the reason: `dead/dead.jsonl` in the state folder, and the topic of
//! dead letters where Kafka is used. Letters are written when their epoch is complete, so a replay may repeat the last ones.

use serde::Serialize;
use std::path::Path;

use super::jsonl::{Jsonl, Undelivered};
#[cfg(feature = "kafka")]
use super::topic::Topic;
use crate::model::Dead;
use crate::model::forget::{Eraser, Leavers};
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

    /// What takes users out of the file. A letter keeps its place; what the topic holds is for its own retention.
    pub fn eraser(&self) -> Eraser {
        let file = self.file.clone();
        Box::new(move |leavers| file.rewrite(|line| without(line, leavers)).map_err(|e| e.to_string()))
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

/// What stands for what a letter said of somebody who is forgotten.
const FORGOTTEN: &str = "(forgotten)";

/// A line as it is kept: without what was said and sent, where that names one of the users.
fn without(line: &str, leavers: &Leavers) -> Option<String> {
    let Ok(serde_json::Value::Object(mut letter)) = serde_json::from_str(line) else { return Some(line.to_string()) };
    let epoch = letter.get("epoch").and_then(|epoch| epoch.as_u64()).unwrap_or_default();
    let named = |text: &str| leavers.named_in(text, |until| epoch <= until.epoch);
    let names = |text: Option<&serde_json::Value>| text.and_then(|text| text.as_str()).is_some_and(named);
    if !names(letter.get("sample")) && !names(letter.get("reason")) {
        return Some(line.to_string());
    }
    ["sample", "reason"].into_iter().for_each(|field| drop(letter.insert(field.to_string(), FORGOTTEN.into())));
    Some(serde_json::Value::Object(letter).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UserId;
    use crate::model::forget::Until;

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

    #[test]
    fn a_letter_of_a_forgotten_user_keeps_its_place_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let mut letters = DeadLetters::open(dir.path(), None).expect("it opens");
        let of = |offset, reason: &str, sample: &str| Dead {
            topic: "t".into(),
            partition: 1,
            offset,
            reason: reason.into(),
            sample: sample.into(),
        };
        let dead = [of(2, "no", r#"{"user_id":"gone""#), of(3, "the id `gone` is", "x"), of(4, "no", r#"{"user_id":"stays""#)];
        letters.write(7, dead.iter()).expect("there is room");
        let users = [(UserId::of("gone"), Until { accepted: 0, epoch: 7 })].into();
        assert_eq!(letters.eraser()(&Leavers { users, ..Leavers::default() }), Ok(2));
        let text = std::fs::read_to_string(dir.path().join("dead/dead.jsonl")).expect("it is there");
        assert!(!text.contains("gone") && text.contains("stays"), "{text}");
        let offsets: Vec<_> = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line")).collect();
        assert_eq!(offsets.iter().map(|line| line["offset"].as_u64()).collect::<Vec<_>>(), [Some(2), Some(3), Some(4)]);
    }
}
