//! Where a scene's stream lies: the embedded log, or the topics of a real broker. Whoever reads it from recorded positions reads the
//! same records again.

use bytes::Bytes;
use overdrive::config::Config;
use overdrive::model::{Positions, Role};
use overdrive::sources::Source;
use overdrive::sources::log::{LogAppender, LogSource, ends, folder};
use std::path::{Path, PathBuf};

/// Key and payload of each.
pub type Records = Vec<(Bytes, Option<Bytes>)>;

/// Something to append with; it waits until the records are there.
pub type Append = Box<dyn FnMut(Role, Records) + Send>;

/// Something that holds a stream.
pub trait Input {
    fn appender(&self) -> Append;

    /// The offset after the last record of every partition.
    fn ends(&self) -> Positions;

    /// Reads from there on, in this process.
    fn open(&self, from: Positions) -> Box<dyn Source>;

    /// What an engine must be told to read it.
    fn settings(&self) -> Vec<(&'static str, String)>;

    /// Ends whoever serves it, as a crash would or as one asks them to.
    fn end(&mut self, _cleanly: bool) {
        panic!("nobody serves a log in files");
    }

    /// Whoever serves it comes back.
    fn start_again(&mut self) {}
}

/// The embedded log in a state folder.
pub struct LogInput(PathBuf);

impl LogInput {
    pub fn new(state_dir: &Path) -> Self {
        Self(folder(state_dir))
    }
}

impl Input for LogInput {
    fn appender(&self) -> Append {
        let log = LogAppender::open(&self.0, &Config::defaults().log).expect("the log opens");
        Box::new(move |role, records| drop(log.append_now(role, &records).expect("the log takes it")))
    }

    fn ends(&self) -> Positions {
        ends(&self.0, &Config::defaults().log).expect("the log tells")
    }

    fn open(&self, from: Positions) -> Box<dyn Source> {
        Box::new(LogSource::open(&self.0, &Config::defaults().log, from).expect("the log opens"))
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}
