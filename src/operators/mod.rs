//! What moves rows, each a verb and a file. None of them knows a configuration, a codec, a clock or a socket.

pub mod durable;
pub mod lead;
pub mod link;
pub mod per_epoch;
pub mod route;
pub mod top;
pub mod turns;
pub mod window;

pub use durable::{Durable, Keep, Saver, Vault};
pub use lead::Lead;
pub use per_epoch::PerEpoch;
pub use route::{Route, To};
pub use turns::Turns;
