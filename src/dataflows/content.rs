//! What the content of items is like: the directions of the embeddings their producer sent, and of what encoders made of their text and
//! images. Encoders run beside the engine; what is to be encoded is told, and what they make of it comes back as records of the input.
//!
//! ```text
//! items ─▶ pieces (item) ─▶ to be encoded ─▶ … a thread beside the engine … ─▶ control input ─▶ pieces
//!              └▶ directions ─▶ every worker
//! ```
//!
//! The facts that must stay true: an item's directions are of the content the catalogue last said and of the encoder last named, or there are
//! none; so they follow from the input alone, and a result that comes too late changes nothing. What is not encoded is asked for again
//! in time, and nothing waits for it.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use timely::dataflow::StreamVec;
use timely::dataflow::operators::OkErr;
use timely::dataflow::operators::vec::Map;

use super::ContentParams;
use crate::model::content::{Direction, Directions, Encoded, Points, Space, Work, hash};
use crate::model::ids::{KEY_GROUPS, key_group};
use crate::model::time::{Millis, SECOND};
use crate::model::{Change, Control, Epoch, Input, Item, ItemId, Origin};
use crate::operators::{Arrivals, Clock, Durable, Route, Saver, To, Vault};

/// The stage: usable records in; directions that changed out, on every worker, and what is to be encoded.
pub fn content<'scope>(
    usable: StreamVec<'scope, u64, (Origin, Input)>,
    clock: &Clock,
    params: &ContentParams,
    vault: &Vault,
) -> (Arrivals<'scope, Points>, StreamVec<'scope, u64, Change>) {
    let own = params.clone();
    let rows = usable.flat_map(move |(origin, input)| row(origin, input, &own));
    let out = rows.deliver(Row::to).keep(clock, Pieces::new(params.waiting_bytes), vault, Pieces::step);
    let (points, asked): (StreamVec<u64, Points>, StreamVec<u64, Change>) = out.ok_err(|output| match output {
        Output::Points(points) => Ok(points),
        Output::Asked(work) => Err(Change::Encode(work)),
    });
    (points.to_all(), asked)
}

/// What a record says of an item's content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Brought {
    embedding: Option<Arc<Direction>>,
    text: Option<Arc<[u8]>>,
    image: Option<Arc<[u8]>>,
    /// Whether it may be shown.
    offered: bool,
}

/// What reaches the stage. The order of the variants is the order of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Row {
    Item(ItemId, Option<Brought>),
    Encoder(Space, u64),
    Encoded(ItemId, Arc<Encoded>),
}

/// A row and where it was read.
type Read = (Origin, Row);

impl Row {
    /// What is said of an item goes to its owner, the rest to everyone.
    fn to((_, row): &Read) -> To {
        match row {
            Self::Item(item, _) | Self::Encoded(item, _) => To::Owner(item.0),
            Self::Encoder(..) => To::All,
        }
    }

    fn place((origin, row): &Read) -> (u8, Origin) {
        let sort = match row {
            Self::Item(..) => 0,
            Self::Encoder(..) => 1,
            Self::Encoded(..) => 2,
        };
        (sort, *origin)
    }
}

fn row(origin: Origin, input: Input, params: &ContentParams) -> Option<Read> {
    let row = match input {
        Input::Item(item, facts) => Row::Item(item, facts.map(|facts| brought(&facts, params))),
        Input::Control(Control::Encoder { space, encoder }) => Row::Encoder(space, encoder),
        Input::Control(Control::Encoded(item, encoded)) => Row::Encoded(item, encoded),
        _ => return None,
    };
    Some((origin, row))
}

fn brought(facts: &Item, params: &ContentParams) -> Brought {
    let read = |space| params.encoder(space).is_some();
    Brought {
        embedding: Direction::of(&facts.embedding).map(Arc::new).filter(|_| params.dimensions > 0),
        text: text(facts, params.text_bytes).filter(|_| read(Space::Text)),
        image: facts.image.clone().filter(|_| read(Space::Image)),
        offered: facts.available,
    }
}

/// Title and text, as far as they are read.
fn text(facts: &Item, most: usize) -> Option<Arc<[u8]>> {
    let said: Vec<&str> = facts.title.iter().chain(&facts.text).map(|part| part.trim()).filter(|part| !part.is_empty()).collect();
    let text = said.join("\n");
    let cut = &text[..text.floor_char_boundary(most)];
    (!cut.is_empty()).then(|| cut.as_bytes().into())
}

/// What an encoder made of a piece, and which one it was.
type Made = (u64, Option<Arc<Direction>>);

/// A piece of content that encoders read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Piece {
    content: u64,
    /// What is to be encoded. Text stays, for another encoder; of an image that was encoded nothing is kept.
    body: Option<Arc<[u8]>>,
    made: Option<Made>,
    /// When it was last asked for.
    asked: Millis,
}

/// What is known of an item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct OfItem {
    embedding: Option<Arc<Direction>>,
    /// As [`Space::ENCODED`].
    pieces: [Option<Piece>; 2],
    /// Whether it may be shown.
    offered: bool,
}

impl OfItem {
    /// Where its content points, by these encoders.
    fn points(&self, item: ItemId, encoders: &[Option<u64>; 2]) -> Points {
        let of = |n: usize| {
            let (encoder, direction) = self.pieces[n].as_ref()?.made.as_ref()?;
            direction.clone().filter(|_| encoders[n] == Some(*encoder))
        };
        let directions = [self.embedding.clone(), of(0), of(1)];
        let offered = self.offered && directions.iter().any(Option::is_some);
        Points { item, directions, offered }
    }

    /// Of an image that waits.
    fn image_bytes(&self) -> usize {
        let images = self.pieces.iter().zip(Space::ENCODED).filter(|(_, space)| *space == Space::Image);
        images.filter_map(|(piece, _)| piece.as_ref()?.body.as_ref()).map(|body| body.len()).sum()
    }
}

/// The place of a space in [`Space::ENCODED`].
fn nth(space: Space) -> Option<usize> {
    Space::ENCODED.into_iter().position(|encoded| encoded == space)
}

/// When what was asked for in vain is asked for again.
const AGAIN_AFTER: Millis = 30 * SECOND;
/// Pieces of a key group that are asked for again in one turn: each group has two turns a second, which is more than encoders do.
const AT_ONCE: usize = 2;

#[derive(Clone, Debug)]
enum Output {
    Points(Points),
    Asked(Arc<Work>),
}

/// A piece of an item: of which, and its place in [`Space::ENCODED`].
type PieceOf = (ItemId, usize);

/// A piece that is to be encoded: by key group, then by when it was last asked for.
type Waits = (u16, Millis, ItemId, usize);

/// The items of one worker. Shared with a snapshot that is being written; then copied before they change.
pub(super) struct Pieces {
    items: BTreeMap<ItemId, Arc<OfItem>>,
    /// The encoders that were last named, as [`Space::ENCODED`].
    encoders: [Option<u64>; 2],
    /// What is to be encoded.
    waiting: BTreeSet<Waits>,
    /// Bytes of the images that wait, by key group.
    images: BTreeMap<u16, usize>,
    /// Of so many, and always of one, a key group keeps the bytes.
    room: usize,
}

impl Pieces {
    /// Nothing yet; images that wait may have so many bytes in all, as far as they are spread evenly.
    fn new(waiting_bytes: usize) -> Self {
        let room = waiting_bytes.div_ceil(KEY_GROUPS as usize);
        let (items, waiting, images) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { items, encoders: [None; 2], waiting, images, room }
    }

    fn step(&mut self, epoch: &Epoch, rows: &mut Vec<Read>, out: &mut Vec<Output>) {
        rows.sort_by_key(Row::place);
        let mut before: BTreeMap<ItemId, Points> = BTreeMap::new();
        let mut come: BTreeSet<PieceOf> = BTreeSet::new();
        for (_, row) in rows.drain(..) {
            match row {
                Row::Item(item, brought) => {
                    before.entry(item).or_insert_with(|| self.points(item));
                    come.extend(self.describe(item, brought));
                }
                Row::Encoder(space, encoder) => self.name(space, encoder, &mut before),
                Row::Encoded(item, encoded) => {
                    before.entry(item).or_insert_with(|| self.points(item));
                    self.take(item, &encoded);
                }
            }
        }
        for (item, before) in before {
            let now = self.points(item);
            out.extend((now != before).then_some(Output::Points(now)));
        }
        come.into_iter().for_each(|piece| out.extend(self.ask(piece, epoch.clock_ms)));
        self.asked_in_vain(epoch).into_iter().for_each(|piece| out.extend(self.ask(piece, epoch.clock_ms)));
    }

    fn points(&self, item: ItemId) -> Points {
        let none = || Points { item, directions: Directions::default(), offered: false };
        self.items.get(&item).map_or_else(none, |of| of.points(item, &self.encoders))
    }

    /// Takes what the catalogue says; yields what of it is new and to be encoded.
    fn describe(&mut self, item: ItemId, brought: Option<Brought>) -> Vec<PieceOf> {
        let mut known = self.let_go(item);
        let Some(Brought { embedding, text, image, offered }) = brought else { return Vec::new() };
        (known.embedding, known.offered) = (embedding, offered);
        let mut come = Vec::new();
        for (n, body) in [text, image].into_iter().enumerate() {
            let new = body.map(|body| Piece { content: hash(&body), body: Some(body), made: None, asked: 0 });
            if self.is_new(new.as_ref(), known.pieces[n].as_ref(), n) {
                known.pieces[n] = new.map(|piece| self.with_room(item, n, piece));
                come.extend(known.pieces[n].is_some().then_some((item, n)));
            }
        }
        if known.embedding.is_some() || known.pieces.iter().any(Option::is_some) {
            self.keep(item, known);
        }
        come
    }

    /// Whether a piece is not the one that is known. One without its bytes that can still be read is: of an image for which there was no
    /// room, or that another encoder has read, they come again.
    fn is_new(&self, new: Option<&Piece>, known: Option<&Piece>, n: usize) -> bool {
        let same = new.map(|piece| piece.content) == known.map(|piece| piece.content);
        !same || known.is_some_and(|piece| piece.body.is_none() && self.is_unread(piece, n))
    }

    /// The same piece, without its bytes where there is no room for them.
    fn with_room(&self, item: ItemId, n: usize, piece: Piece) -> Piece {
        let held = self.images.get(&key_group(item.0)).copied().unwrap_or(0);
        let fits = |body: &Arc<[u8]>| Space::ENCODED[n] != Space::Image || held == 0 || held + body.len() <= self.room;
        Piece { body: piece.body.filter(fits), ..piece }
    }

    /// Takes an item out, with all that is counted of it.
    fn let_go(&mut self, item: ItemId) -> OfItem {
        let group = key_group(item.0);
        let known = self.items.remove(&item).map(Arc::unwrap_or_clone).unwrap_or_default();
        let bytes = known.image_bytes();
        if bytes > 0 {
            *self.images.entry(group).or_default() -= bytes;
        }
        for (n, piece) in known.pieces.iter().enumerate() {
            piece.iter().for_each(|piece| _ = self.waiting.remove(&(group, piece.asked, item, n)));
        }
        known
    }

    /// Puts an item in, and counts it.
    fn keep(&mut self, item: ItemId, of: OfItem) {
        let group = key_group(item.0);
        let bytes = of.image_bytes();
        if bytes > 0 {
            *self.images.entry(group).or_default() += bytes;
        }
        let waits = |n: usize| Some((group, self.is_due(&of, n)?, item, n));
        let waits: Vec<Waits> = (0..Space::ENCODED.len()).filter_map(waits).collect();
        self.waiting.extend(waits);
        self.items.insert(item, Arc::new(of));
    }

    /// Whether the encoder that was last named has not read a piece.
    fn is_unread(&self, piece: &Piece, n: usize) -> bool {
        piece.made.as_ref().is_none_or(|(encoder, _)| Some(*encoder) != self.encoders[n])
    }

    /// When a piece was last asked for that can be read and is not.
    fn is_due(&self, of: &OfItem, n: usize) -> Option<Millis> {
        let piece = of.pieces[n].as_ref().filter(|piece| piece.body.is_some() && self.is_unread(piece, n));
        piece.map(|piece| piece.asked)
    }

    /// Another encoder: nothing the one before made counts, and what can be is encoded anew.
    fn name(&mut self, space: Space, encoder: u64, before: &mut BTreeMap<ItemId, Points>) {
        let Some(n) = nth(space).filter(|n| self.encoders[*n] != Some(encoder)) else { return };
        for (item, of) in &self.items {
            if of.pieces[n].is_some() {
                before.entry(*item).or_insert_with(|| of.points(*item, &self.encoders));
            }
        }
        self.encoders[n] = Some(encoder);
        self.waiting.retain(|(_, _, _, of)| *of != n); // the one before may have left something that this one has read
        let waits = |(item, of): (&ItemId, &Arc<OfItem>)| Some((key_group(item.0), self.is_due(of, n)?, *item, n));
        let waits: Vec<Waits> = self.items.iter().filter_map(waits).collect();
        self.waiting.extend(waits);
    }

    /// Takes what an encoder made, if it is of what the catalogue last said and of the encoder last named.
    fn take(&mut self, item: ItemId, encoded: &Encoded) {
        let Some(n) = nth(encoded.space).filter(|n| self.encoders[*n] == Some(encoded.encoder)) else { return };
        let of = self.items.get(&item).and_then(|of| of.pieces[n].as_ref());
        if of.is_none_or(|piece| piece.content != encoded.content) {
            return;
        }
        let mut known = self.let_go(item);
        let piece = known.pieces[n].as_mut().expect("it was just seen");
        piece.made = Some((encoded.encoder, encoded.direction.clone()));
        piece.body.take_if(|_| encoded.space == Space::Image);
        self.keep(item, known);
    }

    /// What was asked for in vain, the longest ago first, of the key groups whose turn it is.
    fn asked_in_vain(&self, epoch: &Epoch) -> Vec<PieceOf> {
        let (turn, until) = (epoch.turn, epoch.clock_ms - AGAIN_AFTER + 1);
        let of = |group| self.waiting.range((group, Millis::MIN, ItemId(0), 0)..(group, until, ItemId(0), 0)).take(AT_ONCE);
        (turn.from..turn.to).flat_map(of).map(|(_, _, item, n)| (*item, *n)).collect()
    }

    /// Asks for a piece, if it was not encoded in this epoch already; of one that is not kept it is only told that it was there.
    fn ask(&mut self, (item, n): PieceOf, clock: Millis) -> Option<Output> {
        let piece = Arc::make_mut(self.items.get_mut(&item)?).pieces[n].as_mut()?;
        let (group, before) = (key_group(item.0), piece.asked);
        piece.asked = clock;
        let waits = self.waiting.remove(&(group, before, item, n));
        if waits {
            self.waiting.insert((group, clock, item, n));
        }
        let body = match &piece.body {
            Some(body) => waits.then(|| body.clone())?,
            None if piece.made.is_none() => Arc::from([]),
            None => return None,
        };
        Some(Output::Asked(Arc::new(Work { item, space: Space::ENCODED[n], content: piece.content, body })))
    }
}

impl Durable for Pieces {
    const UID: &'static str = "content/2";

    fn save(&self, into: &mut Saver) {
        for (item, of) in self.items.clone() {
            into.own(0, item.0, move || (item, of));
        }
        let encoders = self.encoders;
        into.shared(1, 0, move || encoders);
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        if tag == 1 {
            self.encoders = postcard::from_bytes(body)?;
            return Ok(());
        }
        let (item, of): (ItemId, OfItem) = postcard::from_bytes(body)?;
        self.items.insert(item, Arc::new(of));
        Ok(())
    }

    fn loaded(&mut self) {
        let items = std::mem::take(&mut self.items);
        items.into_iter().for_each(|(item, of)| self.keep(item, Arc::unwrap_or_clone(of)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Role, Turn};

    /// What went out of a step: where items point, and what is to be encoded.
    type Out = (Vec<(u64, [Option<i8>; 3])>, Vec<(u64, Space, String)>);

    fn step(pieces: &mut Pieces, clock_ms: Millis, turn: Turn, rows: Vec<Row>) -> Out {
        let origin = |offset| Origin { role: Role::Items, partition: 0, offset, accepted: 0 };
        let mut rows = rows.into_iter().enumerate().map(|(n, row)| (origin(n as u64), row)).collect();
        let (mut out, mut points, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        pieces.step(&Epoch { clock_ms, turn, ..Epoch::default() }, &mut rows, &mut out);
        for output in out {
            match output {
                Output::Points(of) => points.push((of.item.0, of.directions.map(|of| of.map(|of| of.0[0])))),
                Output::Asked(work) => {
                    assert!(work.body.is_empty() || work.content == hash(&work.body));
                    asked.push((work.item.0, work.space, String::from_utf8_lossy(&work.body).into_owned()));
                }
            }
        }
        (points, asked)
    }

    fn pointing(n: i8) -> Option<Arc<Direction>> {
        Some(Arc::new(Direction([n, 1].into())))
    }

    fn item(id: u64, text: &str, image: &str) -> Row {
        let body = |said: &str| (!said.is_empty()).then(|| said.as_bytes().into());
        Row::Item(ItemId(id), Some(Brought { embedding: None, text: body(text), image: body(image), offered: true }))
    }

    fn made(id: u64, space: Space, body: &str, encoder: u64, direction: Option<Arc<Direction>>) -> Row {
        Row::Encoded(ItemId(id), Arc::new(Encoded { space, content: hash(body.as_bytes()), encoder, direction }))
    }

    #[test]
    fn c43_images_that_wait_have_room_and_those_for_which_there_is_none_come_again() {
        let mut pieces = Pieces::new(KEY_GROUPS as usize * 5);
        let other = (2..).find(|id| key_group(*id) == key_group(1)).expect("of the same key group");
        let images = |id: u64, said: &str| vec![(id, Space::Image, said.to_string())];
        assert_eq!(step(&mut pieces, 0, NOBODY, vec![item(1, "", "abcdefg")]).1, images(1, "abcdefg"), "one always has");
        assert_eq!(step(&mut pieces, 0, NOBODY, vec![item(other, "", "hi")]).1, images(other, ""), "it is told, and not kept");
        assert_eq!(step(&mut pieces, 10 * AGAIN_AFTER, Turn::ALL, vec![]).1, images(1, "abcdefg"));
        let made = vec![Row::Encoder(Space::Image, 9), made(1, Space::Image, "abcdefg", 9, pointing(3))];
        assert_eq!(step(&mut pieces, 0, NOBODY, made).0, [(1, [None, None, Some(3)])]);
        assert_eq!(step(&mut pieces, 0, NOBODY, vec![item(other, "", "hi")]).1, images(other, "hi"), "sent again it has room");
        step(&mut pieces, 0, NOBODY, vec![Row::Item(ItemId(other), None)]);
        assert_eq!(pieces.images.values().sum::<usize>(), 0);
    }

    const NOBODY: Turn = Turn { from: 0, to: 0 };

    #[test]
    fn c43_what_is_said_last_and_by_the_encoder_named_last_counts_and_nothing_else() {
        use Space::{Image, Text};
        let mut pieces = Pieces::new(usize::MAX);
        let ask = |id, space, body: &str| (id, space, body.to_string());
        let first = step(&mut pieces, 0, NOBODY, vec![item(1, "a", "p"), Row::Encoder(Text, 7)]);
        assert_eq!(first, (vec![], vec![ask(1, Text, "a"), ask(1, Image, "p")]));
        let early =
            vec![made(1, Image, "p", 9, pointing(3)), made(1, Text, "a", 8, pointing(3)), made(1, Text, "b", 7, pointing(3))];
        assert_eq!(step(&mut pieces, 0, NOBODY, early), (vec![], vec![]), "nobody, another one, and of something else");
        let right = vec![made(1, Text, "a", 7, pointing(5)), Row::Encoder(Image, 9), made(1, Image, "p", 9, pointing(6))];
        assert_eq!(step(&mut pieces, 0, NOBODY, right), (vec![(1, [None, Some(5), Some(6)])], vec![]));
        assert_eq!(
            step(&mut pieces, 0, NOBODY, vec![item(1, "a", "p"), Row::Encoder(Text, 7)]),
            (vec![], vec![]),
            "said as it was"
        );
        let changed = step(&mut pieces, 0, NOBODY, vec![item(1, "b", "p")]);
        assert_eq!(changed, (vec![(1, [None, None, Some(6)])], vec![ask(1, Text, "b")]));
        assert_eq!(step(&mut pieces, 0, NOBODY, vec![made(1, Text, "a", 7, pointing(5))]), (vec![], vec![]), "too late");
        let nothing = step(&mut pieces, 0, NOBODY, vec![made(1, Text, "b", 7, None)]);
        assert_eq!(nothing, (vec![], vec![]));
        let all = |pieces: &mut Pieces, clock| step(pieces, clock, Turn::ALL, vec![]);
        assert_eq!(all(&mut pieces, 10 * AGAIN_AFTER), (vec![], vec![]), "it can make nothing of it, and is not asked again");
        let both = vec![Row::Encoder(Text, 8), Row::Encoder(Image, 10)];
        assert_eq!(step(&mut pieces, 0, NOBODY, both), (vec![(1, [None; 3])], vec![]), "what others made counts no more");
        assert_eq!(all(&mut pieces, 10 * AGAIN_AFTER), (vec![], vec![ask(1, Text, "b")]), "the image is not there any more");
        assert_eq!(step(&mut pieces, 0, NOBODY, vec![item(1, "b", "p")]).1, [ask(1, Image, "p")], "until it comes again");
        let gone = step(&mut pieces, 0, NOBODY, vec![made(1, Text, "b", 8, pointing(5)), Row::Item(ItemId(1), None)]);
        assert_eq!(gone, (vec![], vec![]), "the item goes first");
        assert!(pieces.items.is_empty() && pieces.waiting.is_empty());
    }

    /// What an encoder made counts again when it is named again, and is not made anew.
    #[test]
    fn c43_an_encoder_that_is_rolled_back_leaves_nothing_to_do() {
        let mut pieces = Pieces::new(usize::MAX);
        let encoder = |named| Row::Encoder(Space::Text, named);
        step(&mut pieces, 0, NOBODY, vec![encoder(7), item(1, "a", ""), item(2, "b", "")]);
        step(&mut pieces, 0, NOBODY, vec![made(1, Space::Text, "a", 7, pointing(5))]);
        step(&mut pieces, 0, NOBODY, vec![encoder(8)]);
        let back = step(&mut pieces, 10 * AGAIN_AFTER, Turn::ALL, vec![encoder(7)]);
        assert_eq!(back, (vec![(1, [None, Some(5), None])], vec![(2, Space::Text, "b".to_string())]));
    }

    #[test]
    fn c43_what_is_not_encoded_is_asked_for_again_in_time() {
        let mut pieces = Pieces::new(usize::MAX);
        let ask = || vec![(1, Space::Text, "a".to_string())];
        assert_eq!(step(&mut pieces, 1_000, Turn::ALL, vec![item(1, "a", "")]).1, ask());
        assert_eq!(step(&mut pieces, 1_000 + AGAIN_AFTER - 1, Turn::ALL, vec![]).1, []);
        assert_eq!(step(&mut pieces, 1_000 + AGAIN_AFTER, NOBODY, vec![]).1, [], "its key group has no turn");
        assert_eq!(step(&mut pieces, 1_000 + AGAIN_AFTER, Turn::ALL, vec![]).1, ask());
        assert_eq!(step(&mut pieces, 1_000 + AGAIN_AFTER, Turn::ALL, vec![]).1, []);
    }

    /// However much waits, a turn asks for a little of it, what waits longest first.
    #[test]
    fn c43_a_backlog_is_asked_for_again_bit_by_bit() {
        let mut pieces = Pieces::new(usize::MAX);
        let group: Vec<u64> = (1..).filter(|id| key_group(*id) == key_group(1)).take(5).collect();
        let ids = |(_, asked): Out| asked.into_iter().map(|(id, ..)| id).collect::<Vec<_>>();
        for (clock, id) in group.iter().enumerate() {
            assert_eq!(ids(step(&mut pieces, clock as Millis, NOBODY, vec![item(*id, "a", "")])), [*id]);
        }
        let mut turn = |clock| ids(step(&mut pieces, clock, Turn::ALL, vec![]));
        assert_eq!(turn(AGAIN_AFTER), group[..1]);
        assert_eq!(turn(AGAIN_AFTER + 9), group[1..3]);
        assert_eq!(turn(AGAIN_AFTER + 9), group[3..5]);
        assert!(turn(AGAIN_AFTER + 9).is_empty());
        assert_eq!(turn(2 * AGAIN_AFTER), group[..1], "they have their turns again");
    }

    /// What may not be shown is told as such, and only of what points somewhere.
    #[test]
    fn c43_what_is_not_offered_is_still_known() {
        let mut pieces = Pieces::new(usize::MAX);
        let of = |embedding: &Option<Arc<Direction>>, offered| {
            Row::Item(ItemId(1), Some(Brought { embedding: embedding.clone(), text: None, image: None, offered }))
        };
        let mut told = |rows: Vec<Row>| -> Vec<bool> {
            let mut rows = rows.into_iter().map(|row| (Origin::default(), row)).collect();
            let mut out = Vec::new();
            pieces.step(&Epoch::default(), &mut rows, &mut out);
            out.into_iter().filter_map(|output| if let Output::Points(of) = output { Some(of.offered) } else { None }).collect()
        };
        let (somewhere, none) = (pointing(3), Vec::<bool>::new());
        assert_eq!(told(vec![of(&None, true)]), none);
        assert_eq!(told(vec![of(&somewhere, true)]), [true]);
        assert_eq!(told(vec![of(&somewhere, false)]), [false]);
        assert_eq!(told(vec![of(&somewhere, false)]), none);
        assert_eq!(told(vec![Row::Item(ItemId(1), None)]), [false]);
    }

    #[test]
    fn what_is_read_of_an_item_is_title_and_text_up_to_a_limit() {
        let of = |title: &str, said: &str, most| {
            let facts = Item { title: Some(title.into()), text: Some(said.into()), ..Item::default() };
            text(&facts, most).map(|text| String::from_utf8_lossy(&text).into_owned())
        };
        assert_eq!(of(" Grüße ", "aus\nUlm", 99).as_deref(), Some("Grüße\naus\nUlm"));
        assert_eq!(of("Grüße", "", 3).as_deref(), Some("Gr"), "no letter is cut in two");
        assert_eq!(of(" ", "", 99), None);
    }
}
