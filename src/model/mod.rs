//! Plain data: what an event, an item, a user, a window and a slate are. Total orders, integers wherever something is
//! summed, no I/O and no clock.

pub mod catalogue;
pub mod changes;
pub mod content;
pub mod decayed;
pub mod epoch;
pub mod example;
pub mod experiment;
pub mod forget;
pub mod ids;
pub mod interaction;
pub mod kind;
pub mod names;
pub mod place;
pub mod rng;
pub mod saved;
pub mod secret;
pub mod serving;
pub mod signals;
pub mod slate;
pub mod time;

pub use catalogue::{Item, User};
pub use changes::Change;
pub use decayed::Decayed;
pub use epoch::{Binding, Epoch, Pace, Positions, Turn};
pub use example::{Example, Watched};
pub use experiment::Variant;
pub use ids::{ItemId, TokenId, UserId, key_group};
pub use interaction::{Control, Dead, Event, Input, ModelOrder, Op, Origin, Ranker, Role, Row};
pub use kind::Kind;
pub use names::Names;
pub use saved::{Handed, Part, Saved};
pub use secret::Secret;
pub use serving::Serving;
pub use signals::{SignalKey, Signals};
pub use slate::{ModelName, Reason, Slate, SlateItem, Source, Surface};
