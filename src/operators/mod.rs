//! What moves rows, each a verb and a file. None of them knows a configuration, a codec, the time of day or a socket.

pub mod arrivals;
pub mod clock;
pub mod durable;
pub mod lead;
pub mod link;
pub mod route;
pub mod top;
pub mod turns;
pub mod window;

pub use arrivals::{Arrivals, Arrive};
pub use clock::Clock;
pub use durable::{Durable, Saver, Vault};
pub use lead::Lead;
pub use route::{Route, To};
pub use turns::Turns;
