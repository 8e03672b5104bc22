//! The change feed of slates: what entered and what left, one line per user and write, in the order of epochs. A line is given
//! out after its slate is in the store, so whoever reads the slate on seeing the line finds it (or a newer one).

use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

use super::jsonl::Jsonl;
pub use super::jsonl::Undelivered;
#[cfg(feature = "kafka")]
use super::topic::Topic;
use crate::model::forget::{Eraser, Leavers};
use crate::model::{Change, Epoch, ItemId, Names, UserId};
use crate::sources::KafkaParams;

/// `[changes]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub kind: Kind,
    pub max_bytes: u64,
}

/// Where changed slates go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    File,
    Kafka,
    None,
}

/// Takes the changes of slates.
pub trait Feed: Send {
    /// Gives out the slates among `changes`, all of one epoch. On an error the lines are lost and the feed goes on.
    fn slates(&mut self, epoch: &Epoch, changes: &[Change]) -> Result<(), Undelivered>;

    /// A user was forgotten, and nothing was said of them since.
    fn gone(&mut self, _user: &str) -> Result<(), Undelivered> {
        Ok(())
    }

    /// What takes users out of it again, where that is possible.
    fn eraser(&self) -> Option<Eraser> {
        None
    }
}

/// The feed that `params` ask for: `slates.jsonl` in `state_dir`, the topic of slates, or none.
pub fn open(params: &Params, state_dir: &Path, kafka: &KafkaParams, names: Arc<Names>) -> Result<Box<dyn Feed>, Undelivered> {
    match params.kind {
        Kind::File => Ok(Box::new(FileFeed { names, file: Jsonl::open(&state_dir.join("slates.jsonl"), params.max_bytes)? })),
        Kind::Kafka => kafka_feed(kafka, names),
        Kind::None => Ok(Box::new(NoFeed)),
    }
}

#[cfg(feature = "kafka")]
fn kafka_feed(kafka: &KafkaParams, names: Arc<Names>) -> Result<Box<dyn Feed>, Undelivered> {
    Ok(Box::new(KafkaFeed { names, topic: Topic::open(kafka, &kafka.slates_topic)? }))
}

#[cfg(not(feature = "kafka"))]
fn kafka_feed(_: &KafkaParams, _: Arc<Names>) -> Result<Box<dyn Feed>, Undelivered> {
    Err(Undelivered("[changes] kind = \"kafka\" needs a build with the feature `kafka`; use \"file\" or \"none\"".to_string()))
}

/// One line of the feed.
#[derive(Serialize)]
struct Line {
    user_id: Arc<str>,
    surface: &'static str,
    epoch: u64,
    /// The epoch's clock, milliseconds since 1970.
    as_of: i64,
    entered: Vec<Arc<str>>,
    left: Vec<Arc<str>>,
}

/// The line of a change: none for what is no slate, changed only its order, or has no known user any more.
fn line(names: &Names, epoch: &Epoch, change: &Change) -> Option<Line> {
    let Change::Slate { user, surface, entered, left, .. } = change else { return None };
    if entered.is_empty() && left.is_empty() {
        return None;
    }
    let items = |ids: &[ItemId]| ids.iter().filter_map(|id| names.items.get(id.0)).collect();
    Some(Line {
        user_id: names.users.get(user.0)?,
        surface: surface.name(),
        epoch: epoch.number,
        as_of: epoch.clock_ms,
        entered: items(entered),
        left: items(left),
    })
}

struct FileFeed {
    names: Arc<Names>,
    file: Jsonl,
}

/// A line as it is kept: not where it is about one of the users, told before they left.
fn without(line: &str, leavers: &Leavers) -> Option<String> {
    #[derive(Deserialize)]
    struct About {
        user_id: String,
        epoch: u64,
    }
    let theirs = |about: About| leavers.takes_answer(UserId::of(&about.user_id), about.epoch);
    (!serde_json::from_str(line).is_ok_and(theirs)).then(|| line.to_string())
}

impl Feed for FileFeed {
    fn eraser(&self) -> Option<Eraser> {
        let file = self.file.clone();
        Some(Box::new(move |leavers| file.rewrite(|line| without(line, leavers)).map_err(|e| e.to_string())))
    }

    fn slates(&mut self, epoch: &Epoch, changes: &[Change]) -> Result<(), Undelivered> {
        for line in changes.iter().filter_map(|change| line(&self.names, epoch, change)) {
            self.file.append(&line)?;
        }
        self.file.flush()
    }
}

#[cfg(feature = "kafka")]
struct KafkaFeed {
    names: Arc<Names>,
    topic: Topic,
}

#[cfg(feature = "kafka")]
impl Feed for KafkaFeed {
    fn gone(&mut self, user: &str) -> Result<(), Undelivered> {
        self.topic.delete(user) // a compacted topic lets go of what it holds of the key
    }

    fn slates(&mut self, epoch: &Epoch, changes: &[Change]) -> Result<(), Undelivered> {
        for line in changes.iter().filter_map(|change| line(&self.names, epoch, change)) {
            let text = serde_json::to_vec(&line).expect("a struct of texts and numbers is JSON");
            self.topic.send(&line.user_id, &text)?;
        }
        Ok(())
    }
}

struct NoFeed;

impl Feed for NoFeed {
    fn slates(&mut self, _: &Epoch, _: &[Change]) -> Result<(), Undelivered> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Surface;
    use crate::model::forget::Until;

    #[test]
    fn a_line_says_what_entered_and_what_left() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let names = Arc::new(Names::default());
        let user = names.user("u").expect("no collision");
        let items = ["a", "b", "c"].map(|i| names.item(i).expect("no collision"));
        let params = Params { kind: Kind::File, max_bytes: 1 << 20 };
        let kafka: KafkaParams = toml::from_str::<toml::Table>(include_str!("../../overdrive.toml"))
            .and_then(|all| all["kafka"].clone().try_into())
            .expect("the defaults");
        let mut feed = open(&params, dir.path(), &kafka, names.clone()).expect("it opens");
        let epoch = Epoch { number: 3, clock_ms: 9, ..Epoch::default() };
        let slate = |user, entered, left| Change::Slate { user, surface: Surface::HOME, slate: None, entered, left };
        let changes = [
            slate(user, vec![items[0]], vec![items[1], items[2]]),
            Change::Forgotten(user),
            slate(user, vec![], vec![]),
            slate(UserId(1), vec![items[0]], vec![]),
        ];
        feed.slates(&epoch, &changes).expect("there is room");
        let text = std::fs::read_to_string(dir.path().join("slates.jsonl")).expect("it is there");
        let line = r#"{"user_id":"u","surface":"home","epoch":3,"as_of":9,"entered":["a"],"left":["b","c"]}"#;
        assert_eq!(text, format!("{line}\n"));

        let erase = feed.eraser().expect("a file can be written anew");
        let leavers = |epoch| Leavers { users: [(user, Until { accepted: 0, epoch })].into(), ..Leavers::default() };
        assert_eq!((erase(&leavers(2)), erase(&leavers(3)), erase(&leavers(3))), (Ok(0), Ok(1), Ok(0)));
        assert_eq!(std::fs::read_to_string(dir.path().join("slates.jsonl")).expect("it is there"), "");
    }
}
