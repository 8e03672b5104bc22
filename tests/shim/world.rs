//! A shim on a free port over a real store and the embedded log, and the few writes that fill the store as the engine would.

use overdrive::config::Config;
use overdrive::dataflows::surfaces::{OnlyParams, SurfaceParams};
use overdrive::model::place::{Place, Standing};
use overdrive::model::{Kind, Positions, Role, Signals, Source};
use overdrive::shim::{Access, AccessParams, Handle, MemoryReader, Params, Reader, Recent, Rules, State, spawn};
use overdrive::sinks::layout::{self, Keys, Segment, SlateValue, Stamp, StoredInterests, Why, proto};
use overdrive::sinks::memory::Memory;
use overdrive::sinks::{Applied, Fence, Known, Store, Write};
use overdrive::sources::log::{LogAppender, LogSource};
use overdrive::sources::{Record, Source as _};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub const PREFIX: &str = "od:";
pub const CLOCK: i64 = 1_763_600_000_123;
const TTL: Duration = Duration::from_secs(3_600);

/// The settings as published.
pub fn config() -> Config {
    toml::from_str(include_str!("../../overdrive.toml")).expect("the defaults are whole")
}

/// A surface beside home.
fn jazzy() -> SurfaceParams {
    let only = OnlyParams { categories: vec!["jazz".into()], ..OnlyParams::default() };
    SurfaceParams { name: "jazzy".into(), only, ..SurfaceParams::default() }
}

/// A shim and what it stands on.
pub struct World {
    pub name: &'static str,
    pub addr: SocketAddr,
    pub grpc: Option<SocketAddr>,
    pub store: Box<dyn Store>,
    pub applied: Applied,
    pub keys: Keys,
    handle: Option<Handle>,
    dir: tempfile::TempDir,
    #[cfg(feature = "redis")]
    pub redis: Option<crate::support::redis::RedisServer>,
}

impl World {
    /// Over the memory of this process.
    pub fn memory(change: impl Fn(&mut Params)) -> World {
        let memory = Memory::new(PREFIX);
        World::over("memory", Arc::new(MemoryReader::new(memory.clone())), Box::new(memory), change)
    }

    /// Over any reader and store.
    pub fn over(name: &'static str, reader: Arc<dyn Reader>, store: Box<dyn Store>, change: impl Fn(&mut Params)) -> World {
        World::build(name, reader, store, change, |_| {})
    }

    /// Over the memory of this process, with these settings of who is let in.
    pub fn with_access(change: impl Fn(&mut AccessParams)) -> World {
        World::with(|_| {}, change)
    }

    /// Over the memory of this process, with these settings of the service and of who is let in.
    pub fn with(change: impl Fn(&mut Params), guard: impl Fn(&mut AccessParams)) -> World {
        let memory = Memory::new(PREFIX);
        World::build("memory", Arc::new(MemoryReader::new(memory.clone())), Box::new(memory), change, guard)
    }

    /// Over the memory of this process, for whom the file of tokens lets in.
    pub fn guarded(tokens: &str, change: impl Fn(&mut AccessParams)) -> World {
        World::guarded_with(tokens, |_| {}, change)
    }

    /// The same, with these settings of the service.
    pub fn guarded_with(tokens: &str, service: impl Fn(&mut Params), change: impl Fn(&mut AccessParams)) -> World {
        let file = tempfile::NamedTempFile::new().expect("a file for the tokens");
        std::fs::write(file.path(), tokens).expect("the tokens are written");
        let memory = Memory::new(PREFIX);
        let reader = Arc::new(MemoryReader::new(memory.clone()));
        World::build("memory", reader, Box::new(memory), service, |access| {
            access.tokens = file.path().to_path_buf();
            change(access);
        })
    }

    /// Over the memory of this process, for whom the keys of `testdata/jwt` let in.
    pub fn signed(change: impl Fn(&mut AccessParams)) -> World {
        let file = tempfile::NamedTempFile::new().expect("a file for the keys, for its owner alone");
        std::fs::write(file.path(), include_str!("../../testdata/jwt/jwks.json")).expect("the keys are written");
        let memory = Memory::new(PREFIX);
        let reader = Arc::new(MemoryReader::new(memory.clone()));
        World::build(
            "memory",
            reader,
            Box::new(memory),
            |_| {},
            |access| {
                access.keys = file.path().to_path_buf();
                change(access);
            },
        )
    }

    /// Over the memory of this process, with these settings.
    pub fn set(change: impl Fn(&mut Config)) -> World {
        let memory = Memory::new(PREFIX);
        World::of("memory", Arc::new(MemoryReader::new(memory.clone())), Box::new(memory), change)
    }

    fn build(
        name: &'static str,
        reader: Arc<dyn Reader>,
        store: Box<dyn Store>,
        change: impl Fn(&mut Params),
        guard: impl Fn(&mut AccessParams),
    ) -> World {
        World::of(name, reader, store, |config| {
            guard(&mut config.access);
            change(&mut config.service);
        })
    }

    /// Over any reader and store, with these settings.
    pub fn of(name: &'static str, reader: Arc<dyn Reader>, store: Box<dyn Store>, change: impl Fn(&mut Config)) -> World {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let mut config = config();
        let params = &mut config.service;
        (params.port, params.grpc, params.grpc_port, params.token_wait) = (0, false, 0, Duration::from_secs(20));
        config.recommend.surfaces.list = vec![jazzy()];
        change(&mut config);
        let log = Arc::new(LogAppender::open(dir.path(), &config.log).expect("the log opens"));
        let access = Access::open(&config.access, dir.path()).expect("the tokens are sound");
        let state = State::new(
            &config.service,
            PREFIX,
            reader,
            log,
            access,
            Recent::default(),
            Rules::read(&config).expect("what they name can be read"),
        );
        let handle = spawn(&config.service, state).expect("a free port");
        World {
            name,
            addr: handle.addr,
            grpc: handle.grpc,
            store,
            applied: Applied::default(),
            keys: Keys::new(PREFIX),
            handle: Some(handle),
            dir,
            #[cfg(feature = "redis")]
            redis: None,
        }
    }

    /// Writes as of the next epoch, which is also a tick.
    pub fn write(&mut self, writes: &[Write]) {
        self.applied.epoch += 1;
        self.applied.tick_epoch = self.applied.epoch;
        (self.applied.clock_ms, self.applied.watermark_ms) = (CLOCK, CLOCK - 5);
        self.store.write(writes, &self.applied, Known::default()).expect("the store takes it");
    }

    /// Says that everything in the log has been read, at both cadences or only at that of epochs.
    pub fn caught_up(&mut self, tick: bool) {
        let mut next = Positions::new();
        for record in self.logged() {
            next.insert((record.role, record.partition), record.offset + 1);
        }
        self.applied.offsets = next.clone();
        if tick {
            self.applied.tick_offsets = next;
        }
    }

    /// Everything in the log, in the order of roles and offsets.
    pub fn logged(&self) -> Vec<Record> {
        let mut source = LogSource::open(self.dir.path(), &config().log, Positions::new()).expect("the log opens");
        let (mut records, mut last) = (Vec::new(), usize::MAX);
        while records.len() != last {
            last = records.len();
            source.poll(10_000, Duration::from_millis(50), &mut records).expect("the log is whole");
        }
        records.sort_by_key(|r| (r.role, r.partition, r.offset));
        records
    }

    /// The payloads of a role.
    pub fn payloads(&self, role: Role) -> Vec<String> {
        let of = self.logged().into_iter().filter(|record| record.role == role);
        of.map(|record| String::from_utf8(record.payload.expect("not a deletion").to_vec()).expect("text")).collect()
    }

    /// Where the log lies.
    pub fn log_dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Stops the shim.
    pub fn stop(&mut self) {
        self.handle.take().expect("stopped once").stop();
    }

    /// Newer than all before.
    pub fn fence(&self) -> Fence {
        Fence { epoch: self.applied.epoch + 1, generation: 1 }
    }

    /// A slate of these items, best first, each because of another one; the first, the third and so on are jazz.
    pub fn slate(&self, user: &str, items: &[&str]) -> Write {
        self.slate_of(user, items, self.applied.epoch + 1)
    }

    /// The same, as of a given epoch.
    pub fn slate_of(&self, user: &str, items: &[&str], epoch: u64) -> Write {
        self.slate_on("home", user, items, epoch)
    }

    /// The same, on another surface.
    pub fn slate_on(&self, surface: &str, user: &str, items: &[&str], epoch: u64) -> Write {
        let mut slate = SlateValue::new(Vec::new(), user, surface, CLOCK);
        let mut why = Vec::new();
        Why { kind: proto::ReasonKind::Because, interaction: "share", subject: "i0" }.encode(&mut why);
        for (place, item) in items.iter().enumerate() {
            slate.push(item, 900_000 - place as i32, Source::Neighbours, &why, &[4_000, 9_000, 1_000, 6_000, 2_500]);
        }
        // Every other item, from the first on, is of this category.
        slate.ordered_by("blend", "");
        let mut places = Vec::new();
        (0..items.len() as u16).step_by(2).for_each(|place| layout::put_place(&mut places, place));
        slate.categorise("jazz", &places);
        slate.took("i0", "share");
        slate.in_all(1);
        let value = slate.finish(Stamp { epoch, generation: 1, model: 0 });
        Write::Value { key: self.keys.slate(surface, None, user), value, ttl: TTL, fence: self.fence() }
    }

    /// Items a user has seen, latest first.
    pub fn seen(&self, user: &str, items: &[&str]) -> Write {
        let members = items.iter().enumerate().map(|(i, item)| (item.to_string(), (CLOCK - i as i64) as f64)).collect();
        Write::Ranked { key: self.keys.seen(user), members, ttl: TTL, fence: self.fence() }
    }

    /// An item withdrawn.
    pub fn gone(&self, item: &str) -> Write {
        let members = vec![(item.to_string(), Some(CLOCK as f64))];
        Write::Members { key: self.keys.gone(), members, ttl: TTL, fence: self.fence() }
    }

    /// What is trending in all or in a category.
    pub fn trending(&self, category: Option<&str>, items: &[&str]) -> Write {
        self.trending_in(category.map_or(Segment::All, Segment::Category), items)
    }

    /// What is trending, best first, with scores 10, 9, ….
    pub fn trending_in(&self, segment: Segment<'_>, items: &[&str]) -> Write {
        let score = |place: usize| (10_000 - 1_000 * place as i64) as f64;
        let members = items.iter().enumerate().map(|(place, item)| (item.to_string(), score(place))).collect();
        Write::Ranked { key: self.keys.trending(segment), members, ttl: TTL, fence: self.fence() }
    }

    /// Items, each with its latitude, longitude and quality, in the lists of the cells they lie in.
    pub fn near(&self, items: &[(&str, f64, f64, f64)]) -> Vec<Write> {
        let mut lists = BTreeMap::<String, Vec<(String, f64)>>::new();
        for &(item, lat, lon, quality) in items {
            let place = Place::new(lat, lon).expect("on the earth");
            let packed = Standing { place, quality }.packed() as f64;
            for cell in place.cells() {
                lists.entry(self.keys.near(&cell.to_string())).or_default().push((item.to_string(), packed));
            }
        }
        let write = |(key, members)| Write::Ranked { key, members, ttl: TTL, fence: self.fence() };
        lists.into_iter().map(write).collect()
    }

    /// What is new, newest first.
    pub fn fresh(&self, items: &[&str]) -> Write {
        let members = items.iter().enumerate().map(|(i, item)| (item.to_string(), (CLOCK - i as i64) as f64)).collect();
        Write::Ranked { key: self.keys.fresh(), members, ttl: TTL, fence: self.fence() }
    }

    /// Three views and a like in the last minute.
    pub fn features(&self, key: String) -> Write {
        let signals = Signals {
            counts: vec![(Kind::View, [3; 5]), (Kind::Like, [0, 1, 1, 1, 1])],
            decayed: 5.0,
            velocity: 1.25,
            ctr: 0.05,
            engagement: 0.125,
            weighted_milli: [3_000, 5_000, 5_000, 5_000, 5_000],
        };
        let fields = layout::encode_features(&signals, CLOCK, self.fence());
        Write::Fields { key, fields, ttl: TTL, fence: self.fence() }
    }

    /// Jazz for days, rock since an hour.
    pub fn interests(&self, user: &str) -> Write {
        let weights = |jazz: f64| vec![("category:jazz".to_string(), jazz), ("category:rock".to_string(), 1.0 - jazz)];
        let interests = StoredInterests {
            as_of: CLOCK,
            epoch: self.applied.epoch + 1,
            short: weights(0.25),
            long: weights(0.75),
            drift: 0.4,
        };
        let fields = layout::encode_interests(&interests, 1);
        Write::Fields { key: self.keys.interests(user), fields, ttl: TTL, fence: self.fence() }
    }

    /// One neighbour.
    pub fn neighbours(&self, item: &str, neighbour: &str) -> Write {
        let neighbour = proto::Neighbour { item_id: neighbour.to_string(), similarity_micro: 410_000, users: 12 };
        let list = proto::Neighbours { item_id: item.to_string(), as_of_ms: CLOCK, neighbours: vec![neighbour], users: 4 };
        let stamp = Stamp { epoch: self.applied.epoch + 1, generation: 1, model: 0 };
        let value = layout::encode_neighbours(&list, stamp);
        Write::Value { key: self.keys.neighbours(item), value, ttl: TTL, fence: self.fence() }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.stop();
        }
    }
}
