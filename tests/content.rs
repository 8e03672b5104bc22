//! What items are like, in the whole path: what is like something a user took is offered with a true reason, wherever it stands in the
//! catalogue, and is gone with what made it alike; without content nothing of it is there.

#[path = "support/dataflow.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod dataflow;

use dataflow::{Changes, Kept, Log, Run, described_with, item, resume_by, run_by, user};
use overdrive::dataflows::Params;
use overdrive::model::catalogue::Item;
use overdrive::model::content::{Direction, Encoded, Space, hash};
use overdrive::model::slate::{Reason, Slate, SlateItem, Source};
use overdrive::model::time::{MINUTE, SECOND};
use overdrive::model::{Change, Control, Event, Input, Kind, Op, UserId};
use std::sync::Arc;

/// Content alone brings candidates, and counts most.
fn params() -> Params {
    let mut params = dataflow::params();
    params.learn.enabled = false;
    (params.content.enabled, params.content.text_encoder) = (true, "there".into());
    (params.slates.neighbours, params.slates.interests, params.slates.trending, params.slates.fresh) = (0, 0, 0, 0);
    (params.slates.candidates, params.explore.slots) = (3, 0);
    (params.blend.content, params.cold.content) = (10.0, 10.0);
    params
}

fn like(what: u8, id: u64, at: i64) -> Input {
    let (user, item) = (user(1), item(what));
    Input::Event(Event { id, user, item, kind: Kind::Like, op: Op::Add, at, value_milli: None })
}

fn slate(changes: &Changes, of: UserId) -> Option<Arc<Slate>> {
    let slates = changes.values().flatten().filter_map(|change| match change {
        Change::Slate { user, slate, .. } if *user == of => Some(slate.clone()),
        _ => None,
    });
    slates.last().flatten()
}

/// What stands in the last slate because it is like something: the item, and what it is like.
fn alike(changes: &Changes) -> Vec<(u8, u8)> {
    let number = |id| (0..dataflow::ITEMS).find(|n| item(*n) == id).expect("of the catalogue");
    let of = |of: &SlateItem| match of.reason {
        Reason::Because { kind: Kind::Like, item } if of.source == Source::Content => Some((number(of.item), number(item))),
        _ => None,
    };
    slate(changes, user(1)).iter().flat_map(|slate| &slate.items).filter_map(of).collect()
}

/// Item 9 lies where item 4 does, item 8 near it; 7 points away, and 6 nowhere.
fn embedded() -> Vec<Input> {
    let at = |n: u8, angle: f32| described_with(n, Item { embedding: vec![angle.cos(), angle.sin()], ..Item::default() });
    vec![at(4, 0.5), at(9, 0.5), at(8, 0.9), at(7, 3.5)]
}

fn after(log: &mut Log, inputs: Vec<Input>) {
    let clock = log.advance(SECOND);
    let timed = |input| if let Input::Event(event) = input { Input::Event(Event { at: clock, ..event }) } else { input };
    log.epoch(inputs.into_iter().map(timed).collect());
}

#[test]
fn c11_what_is_like_something_a_user_took_is_offered_and_says_so() {
    let mut log = Log::with_catalogue();
    after(&mut log, embedded());
    after(&mut log, vec![like(4, 1, 0)]);
    for workers in [1, 2, 4] {
        let found = alike(&run_by(&log, Run { workers, one_by_one: workers == 2 }, &params()));
        assert_eq!(found, [(9, 4), (8, 4)], "{workers} workers");
    }
    let terms = slate(&run_by(&log, Run::plain(), &params()), user(1)).expect("a slate").items[0].terms;
    assert_eq!(terms[0], 10_000, "it is as alike as can be");
    let off = Params { content: overdrive::dataflows::ContentParams { enabled: false, ..params().content }, ..params() };
    assert_eq!(alike(&run_by(&log, Run::plain(), &off)), []);
    let (_, kept) = resume_by(&log.saved_at_the_end(), &Kept::new(), Run::plain(), &off);
    assert!(!kept.contains_key("content/1"), "nothing is built");
    assert!(kept["slates/6"].iter().all(|entry| entry.payload[0] != 6), "and nothing is kept");

    // what made it alike goes, item by item
    after(&mut log, vec![Input::Item(item(9), None)]);
    after(&mut log, vec![described_with(8, Item::default())]);
    after(&mut log, vec![like(10, 2, 0)]);
    let (changes, kept) = resume_by(&log.saved_at_the_end(), &Kept::new(), Run::plain(), &params());
    assert_eq!(alike(&changes), []);
    assert_eq!(kept["content/1"].len(), 3, "of items 4 and 7, and the encoders");
}

#[test]
fn c11_nobody_is_shown_as_alike_what_they_may_not_see() {
    let mut log = Log::with_catalogue();
    after(&mut log, embedded());
    let hide = Event { id: 7, user: user(1), item: item(9), kind: Kind::Hide, op: Op::Add, at: 0, value_milli: None };
    after(&mut log, vec![Input::Event(hide), like(4, 1, 0)]);
    assert_eq!(alike(&run_by(&log, Run::plain(), &params())), [(8, 4)]);
}

fn text(n: u8, said: &str) -> Input {
    described_with(n, Item { text: Some(said.into()), ..Item::default() })
}

fn encoded(n: u8, said: &str, encoder: u64, vector: &[f32]) -> Input {
    let direction = Direction::of(vector).map(Arc::new);
    let of = Encoded { space: Space::Text, content: hash(said.as_bytes()), encoder, direction };
    Input::Control(Control::Encoded(item(n), Arc::new(of)))
}

/// The items whose text was to be encoded, with the epoch.
fn asked(changes: &Changes) -> Vec<(u64, String)> {
    let of = |(epoch, changes): (&u64, &Vec<Change>)| -> Vec<(u64, String)> {
        let body = |change: &Change| match change {
            Change::Encode(work) => Some((*epoch, String::from_utf8_lossy(&work.body).into_owned())),
            _ => None,
        };
        changes.iter().filter_map(body).collect()
    };
    let mut all: Vec<_> = changes.iter().flat_map(of).collect();
    all.sort();
    all
}

#[test]
fn c43_what_encoders_say_is_a_record_like_any_other() {
    let mut log = Log::with_catalogue();
    after(&mut log, vec![text(4, "four"), text(9, "nine")]);
    after(&mut log, vec![like(4, 1, 0)]);
    let name = |encoder| Input::Control(Control::Encoder { space: Space::Text, encoder });
    after(&mut log, vec![name(1), encoded(4, "four", 1, &[1.0, 0.0]), encoded(9, "nine", 1, &[1.0, 0.1])]);
    after(&mut log, vec![like(10, 2, 0)]);
    let how = Run::plain();
    assert_eq!(asked(&run_by(&log, how, &params())), [(1, "four".to_string()), (1, "nine".to_string())]);
    assert_eq!(alike(&run_by(&log, how, &params())), [(9, 4)]);
    assert_eq!(alike(&run_by(&log.until(4), how, &params())), [], "no slate waits for an encoder");

    // of a text that is no more it says nothing
    let mut late = log.clone();
    after(&mut late, vec![text(9, "new"), encoded(9, "nine", 1, &[1.0, 0.1])]);
    after(&mut late, vec![like(11, 3, 0)]);
    assert_eq!(alike(&run_by(&late, how, &params())), []);

    // a run that goes on from what was kept asks for nothing that was encoded, and for what was not once it is time
    let (_, kept) = resume_by(&late.saved_at_the_end(), &Kept::new(), how, &params());
    let until = late.epochs.len() as u64;
    late.advance(MINUTE);
    (0..3).for_each(|_| late.epoch(vec![]));
    let (resumed, _) = resume_by(&late.since(until), &kept, Run { workers: 2, one_by_one: false }, &params());
    assert_eq!(asked(&resumed).into_iter().map(|(_, body)| body).collect::<Vec<_>>(), ["new"]);
}
