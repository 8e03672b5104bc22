//! Both stores keep one promise: the same writes leave the same keys, a batch is there before its mark, and what happens to the
//! server in between is made good. And the layout is the published one, byte for byte, also for a reader in another language.

mod support {
    #[cfg(feature = "redis")]
    pub mod redis;
}

mod golden {
    use overdrive::model::catalogue::Item;
    use overdrive::model::changes::{Counts, Interests, Neighbour, Profile, Scope};
    use overdrive::model::experiment::{self, Arm, Sums, Whom};
    use overdrive::model::ids::TokenKind;
    use overdrive::model::kind::Kind;
    use overdrive::model::place::{LEVELS, Place, Standing};
    use overdrive::model::{
        Change, Epoch, ItemId, Names, Reason, Role, Serving, SignalKey, Signals, Slate, SlateItem, Source, Surface, Turn,
    };
    use overdrive::sinks::encode::Encoder;
    use overdrive::sinks::{Applied, Fence, Write, layout};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use std::path::PathBuf;
    use std::process::Command;
    use std::sync::Arc;

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
    }

    /// Compares with the golden file. `OVERDRIVE_BLESS=1` writes it: for a field an old reader passes over, or with a new
    /// version of the layout.
    fn golden(name: &str, bytes: &[u8]) {
        let path = root().join("testdata/layout").join(name);
        if std::env::var_os("OVERDRIVE_BLESS").is_some() {
            std::fs::write(&path, bytes).expect("the folder is there");
        }
        let stored = std::fs::read(&path).expect("a golden file");
        assert!(stored == bytes, "{name} would change: {}", String::from_utf8_lossy(bytes));
    }

    fn golden_json(name: &str, value: &Value) {
        golden(name, format!("{value:#}\n").as_bytes());
    }

    fn changes(names: &Names) -> Vec<Change> {
        let user = names.user("user:1").expect("no collision");
        let item = |name: &str| names.item(name).expect("no collision");
        let jazz = names.token(TokenKind::Category, "jazz").expect("no collision");
        let row = |name: &str, score_micro, source, reason, first| SlateItem {
            item: item(name),
            score_micro,
            source,
            reason,
            terms: [first, 0, 127, 128, 10_000],
        };
        let items = vec![
            row("i9", 912_345, Source::Neighbours, Reason::Because { kind: Kind::Share, item: item("i1") }, 9_000),
            row("käse", 500_000, Source::Interests, Reason::Likes { token: jazz }, 1),
            row("i3", 1, Source::Trending, Reason::Trending { token: None }, 0),
            row("i4", 0, Source::Fresh, Reason::New { token: Some(jazz) }, 0),
            row("i5", -7, Source::Popular, Reason::Popular, 0),
        ];
        let categories = vec![(jazz, 0), (jazz, 3)];
        let (surface, history) = (Surface::HOME, vec![(Kind::Share, item("i1")), (Kind::View, item("käse"))]);
        let slate = Some(Arc::new(Slate { user, surface, model: None, variant: None, items, categories, history, taken: 1 }));
        let counts = vec![(Kind::View, [1, 2, 3, 4, 5]), (Kind::Like, [0, 0, 0, 1, 1])];
        let signals = Signals {
            counts,
            decayed: 6.5,
            velocity: 1.0 / 3.0,
            ctr: 0.05,
            engagement: 0.125,
            weighted_milli: [1_000, 2_000, 3_000, 6_000, 7_000],
        };
        let interests = Interests { short: vec![(jazz, 1.0)], long: vec![(jazz, 0.75)], drift: 0.25 };
        let neighbours = vec![
            Neighbour { item: item("i1"), similarity_micro: 707_107, users: 300 },
            Neighbour { item: item("i3"), similarity_micro: 1, users: 1 },
        ];
        let facts = Item {
            author: Some(names.token(TokenKind::Author, "ann").expect("no collision")),
            categories: [jazz].into_iter().collect(),
            tags: [names.token(TokenKind::Tag, "live").expect("no collision")].into_iter().collect(),
            language: Some(names.token(TokenKind::Language, "de").expect("no collision")),
            lat: Some(48.137),
            lon: Some(11.575),
            city: Some("München".into()),
            quality: Some(0.75),
            mature: true,
            available: true,
            title: Some("A night".into()),
            ..Item::default()
        };
        let profile = Profile {
            lat: Some(48.137),
            lon: Some(11.575),
            city: Some("München".into()),
            local_preference: Some(0.75),
            total_watch_hours: Some(120.5),
            language: Some(names.token(TokenKind::Language, "de").expect("no collision")),
            mature: true,
            hidden_authors: vec![names.token(TokenKind::Author, "ann").expect("no collision")],
            hidden_items: vec![item("i7")],
        };
        let counts =
            Counts { items: 500, users: 1_000, covered: 32, cities: vec![("Los Angeles".into(), 60), ("Tokyo".into(), 42)] };
        let whom = Whom {
            languages: vec!["de".into(), "en".into()],
            cities: vec!["Los Angeles, \"LA\"".into()],
            interests: vec![],
            users: Some(3),
        };
        vec![
            Change::Slate { user, surface: Surface::HOME, slate, entered: vec![], left: vec![] },
            Change::Neighbours(item("i9"), 424, neighbours),
            Change::Card(item("i9"), Some((Arc::new(facts), 1_763_500_000_123))),
            Change::Signals(SignalKey::User(user), Some(Arc::new(signals))),
            Change::Interests(user, Some(Arc::new(interests))),
            Change::Seen(user, vec![(item("i1"), Some(1_763_600_000_123))]),
            Change::Trending(Scope::Category(jazz), vec![(item("i9"), 12_500), (item("i3"), 3)]),
            Change::Catalogue(item("i7"), false),
            Change::Experiments(Arc::new(vec![standing("first", Some(whom)), standing("second", None)])),
            Change::Profile(user, Some(Arc::new(profile))),
            Change::Census(Arc::new(counts)),
            near(&[(item("i9"), 48.137, 11.575, 1.0), (item("i3"), 48.1371, 11.5752, 0.5)]),
        ]
    }

    fn standing(name: &str, whom: Option<Whom>) -> experiment::Standing {
        let sums = [3, 60, 9, 9, 9_000, 1_400, 33, 210, 45, 41_000_000, 3];
        let arm = |name: &str, ranks: &str| Arm {
            name: name.into(),
            ranks: ranks.into(),
            sums: Sums::from_numbers(sums).expect("small numbers"),
        };
        let arms = vec![arm("control", "blend"), arm("model", "lambdarank-1")];
        experiment::Standing { name: name.into(), rollout: 0.1, whom, began: 1_763_500_000_123, arms }
    }

    /// What lies in the cell of the first, the last of [`LEVELS`].
    fn near(items: &[(ItemId, f64, f64, f64)]) -> Change {
        let standing = |&(item, lat, lon, quality): &(ItemId, f64, f64, f64)| {
            let place = Place::new(lat, lon).expect("on the earth");
            (item, place.cell(LEVELS[3]), Standing { place, quality }.packed())
        };
        let standings: Vec<_> = items.iter().map(standing).collect();
        Change::Near(standings[0].1, standings.iter().map(|(item, _, packed)| (*item, *packed)).collect())
    }

    fn writes() -> Vec<Write> {
        let names = Arc::new(Names::default());
        let encoder = Encoder::new(names.clone(), &super::store_params());
        let epoch = Epoch {
            number: 1 << 40,
            clock_ms: 1_763_600_000_123,
            watermark_ms: 0,
            turn: Turn::ALL,
            refreshes: None,
            save: false,
            retell: None,
            model: None,
        };
        let mut out = Vec::new();
        changes(&names).iter().for_each(|change| encoder.writes(change, &epoch, 3, &mut out));
        assert_eq!(encoder.skipped(), 0);
        out
    }

    /// The members as they lie in the set.
    fn with_fence(members: Value, fence: Fence) -> Value {
        let mut members = members;
        members.as_array_mut().expect("a list").push(json!([layout::fence_member(fence), "-inf"]));
        members
    }

    #[test]
    fn what_stays_of_deleted_keys_is_byte_for_byte_the_golden_one() {
        let fence = Fence { epoch: 1 << 40, generation: 3 };
        golden("deleted.bin", &layout::deleted_value(fence));
        golden_json("deleted.json", &json!(layout::deleted_fields(fence).into_iter().collect::<BTreeMap<_, _>>()));
    }

    #[test]
    fn values_are_byte_for_byte_the_golden_ones() {
        let mut keys = BTreeMap::new();
        for write in writes() {
            let family = write.key().trim_start_matches("od:").split(':').next().expect("a family").to_string();
            let (sort, ttl) = match &write {
                Write::Value { value, ttl, .. } => {
                    golden(&format!("{family}.bin"), value);
                    ("string", ttl)
                }
                Write::Fields { fields, ttl, .. } => {
                    let sorted: BTreeMap<_, _> = fields.iter().cloned().collect();
                    golden_json(&format!("{family}.json"), &json!(sorted));
                    ("hash", ttl)
                }
                Write::Ranked { members, ttl, fence, .. } => {
                    golden_json(&format!("{family}.json"), &with_fence(json!(members), *fence));
                    ("zset", ttl)
                }
                Write::Members { members, ttl, fence, .. } => {
                    golden_json(&format!("{family}.json"), &with_fence(json!(members), *fence));
                    ("zset", ttl)
                }
                Write::Delete { key, .. } => panic!("{key} has a value"),
            };
            keys.insert(write.key().to_string(), json!([sort, humantime::format_duration(*ttl).to_string()]));
        }
        golden_json("keys.json", &json!(keys));
        let offsets = [((Role::Events, 0), 1200), ((Role::Items, 0), 7)].into();
        let applied = Applied {
            epoch: 1 << 40,
            generation: 3,
            rebuilding: false,
            tick_epoch: 1 << 39,
            clock_ms: 1_763_600_000_123,
            watermark_ms: 1_763_600_000_000,
            serving: Serving::default(),
            offsets,
            tick_offsets: [((Role::Events, 0), 1000)].into(),
        };
        golden_json("meta.json", &json!(layout::encode_applied(&applied).into_iter().collect::<BTreeMap<_, _>>()));
    }

    /// Runs the reader printed in `schemas/redis.md` on the golden slate.
    #[test]
    fn the_published_reader_reads_the_golden_slate_and_what_stays_of_one() {
        let page = std::fs::read_to_string(root().join("schemas/redis.md")).expect("the page is there");
        let reader = page.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a reader in Python");
        let code = reader.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(code <= 14, "a reader of {code} lines is no advertisement");
        let show = "import sys, json\nprint(json.dumps([slate(open(path, 'rb').read()) for path in sys.argv[1:]]))";
        let mut python = Command::new("python3");
        python.arg("-c").arg(format!("{reader}\n{show}"));
        python.args(["slate.bin", "deleted.bin"].map(|name| root().join("testdata/layout").join(name)));
        let Ok(output) = python.output() else {
            eprintln!("skipped: there is no python3 here to run the reader of schemas/redis.md");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
        let items = json!([["i9", 0.912345], ["käse", 0.5], ["i3", 0.000001], ["i4", 0.0], ["i5", -0.000007]]);
        assert_eq!(read, json!([[1u64 << 40, items], [1u64 << 40, []]]));
    }
}

/// The defaults, as an operator would have them.
fn store_params() -> overdrive::sinks::Params {
    let defaults: toml::Table = toml::from_str(include_str!("../overdrive.toml")).expect("the defaults");
    defaults["store"].clone().try_into().expect("the section of the store")
}

#[cfg(feature = "redis")]
mod contract {
    use super::support::redis::RedisServer;
    use bytes::Bytes;
    use overdrive::model::Serving;
    use overdrive::model::catalogue::Item;
    use overdrive::model::changes::{Neighbour, Scope};
    use overdrive::model::{
        Binding, Change, Dead, Epoch, ItemId, Names, Pace, Reason, Role, SignalKey, Signals, Slate, SlateItem, Source, Surface,
        Turn, UserId,
    };
    use overdrive::sinks::dead_letters::DeadLetters;
    use overdrive::sinks::encode::Encoder;
    use overdrive::sinks::layout::{self, Stamp, proto};
    use overdrive::sinks::memory::{Dumped, Memory};
    use overdrive::sinks::redis::Redis;
    use overdrive::sinks::writer::{self, Hooks, Writer};
    use overdrive::sinks::{Applied, Completed, Fence, Known, RedisParams, Sort, Store, StoreError, Swept, Write, changes};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::Duration;
    use xxhash_rust::xxh3::xxh3_64_with_seed;

    const LONG: Duration = Duration::from_secs(3600);
    type Dump = BTreeMap<String, Dumped>;

    fn redis_params(url: &str) -> RedisParams {
        let defaults: toml::Table = toml::from_str(include_str!("../overdrive.toml")).expect("the defaults");
        let mut params: RedisParams = defaults["redis"].clone().try_into().expect("the section of Redis");
        params.url = url.to_string();
        // Small, so that a test's batches take several round trips.
        params.pipeline = 40;
        params.retry_max = Duration::from_millis(100);
        params
    }

    fn open(url: &str) -> Redis {
        Redis::open(&redis_params(url), "od:").expect("a readable url")
    }

    /// What a reader of a store sees.
    trait Reader: Send {
        fn epoch(&mut self) -> u64;
        fn value(&mut self, key: &str) -> Option<Bytes>;
        fn dump(&mut self) -> Dump;
    }

    impl Reader for Memory {
        fn epoch(&mut self) -> u64 {
            self.applied().epoch
        }
        fn value(&mut self, key: &str) -> Option<Bytes> {
            Memory::value(self, key)
        }
        fn dump(&mut self) -> Dump {
            Memory::dump(self)
        }
    }

    impl Reader for redis::Connection {
        fn epoch(&mut self) -> u64 {
            let epoch: Option<u64> = ask(self, &["HGET", "od:meta", "epoch"]);
            epoch.unwrap_or(0)
        }
        fn value(&mut self, key: &str) -> Option<Bytes> {
            ask::<Option<Vec<u8>>>(self, &["GET", key]).map(Bytes::from)
        }
        fn dump(&mut self) -> Dump {
            super::support::redis::dump(self)
        }
    }

    fn ask<T: redis::FromRedisValue>(redis: &mut redis::Connection, command: &[&str]) -> T {
        redis::cmd(command[0]).arg(&command[1..]).query(redis).expect("the server answers")
    }

    fn connect(server: &RedisServer) -> redis::Connection {
        redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("the server answers")
    }

    fn at(epoch: u64) -> Fence {
        Fence { epoch, generation: 1 }
    }

    /// A binary value with a header.
    fn sealed(content: &str, Fence { epoch, generation }: Fence) -> Vec<u8> {
        let body = proto::Neighbours { item_id: content.to_string(), as_of_ms: 0, neighbours: vec![], users: 0 };
        layout::encode_neighbours(&body, Stamp { epoch, generation, model: 0 })
    }

    fn value(key: &str, content: &str, ttl: Duration, fence: Fence) -> Write {
        Write::Value { key: key.into(), value: sealed(content, fence), ttl, fence }
    }

    /// A hash with its fence in it.
    fn fields(key: &str, pairs: &[(&str, &str)], ttl: Duration, fence: Fence) -> Write {
        let mut fields: layout::Fields = pairs.iter().map(|(f, v)| (f.to_string().into(), v.to_string())).collect();
        fields.push(("epoch".into(), fence.epoch.to_string()));
        fields.push(("generation".into(), fence.generation.to_string()));
        Write::Fields { key: key.into(), fields, ttl, fence }
    }

    fn members(members: &[(&str, Option<f64>)], ttl: Duration, fence: Fence) -> Write {
        let members = members.iter().map(|(m, s)| (m.to_string(), *s)).collect();
        Write::Members { key: "od:gone".into(), members, ttl, fence }
    }

    fn each_sort(ttl: Duration, fence: Fence) -> Vec<Write> {
        let scored = |all: &[(&str, f64)]| all.iter().map(|(m, s)| (m.to_string(), *s)).collect();
        vec![
            value("od:slate:home:{u}", "\0ÿ\r\n\0", ttl, fence),
            Write::Value { key: "od:neighbours:empty".into(), value: vec![], ttl, fence },
            fields("od:user:{u}", &[("view_5m", "2"), ("käse", ""), ("ctr", "0.05")], ttl, fence),
            Write::Ranked {
                key: "od:seen:{u}".into(),
                members: scored(&[("b", 1.0), ("a", 1.0), ("c", -2.5), ("d", 1_763_600_000_123.0), ("", 0.1)]),
                ttl,
                fence,
            },
            members(&[("x", Some(3.0)), ("y", Some(3.0))], ttl, fence),
        ]
    }

    /// Writes to both; both must then hold the same.
    fn same(memory: &mut Memory, redis: &mut Redis, seen: &mut redis::Connection, writes: &[Write], applied: &Applied) -> Dump {
        let in_memory = memory.write(writes, applied, Known::default()).expect("memory is always there");
        let in_redis = redis.write(writes, applied, Known::default()).expect("the server is there");
        assert_eq!(in_memory, in_redis);
        let dump = Memory::dump(memory);
        assert_eq!(seen.dump(), dump);
        dump
    }

    #[test]
    fn the_same_writes_leave_the_same_keys() {
        let server = RedisServer::start();
        let (mut memory, mut redis, mut seen) = (Memory::new("od:"), open(&server.url()), connect(&server));
        let mut step = |writes: &[Write], applied: &Applied| same(&mut memory, &mut redis, &mut seen, writes, applied);
        let mark = |epoch| Applied { epoch, offsets: [((Role::Events, 1), epoch)].into(), ..Default::default() };

        let all = step(&each_sort(LONG, at(1)), &mark(1));
        assert_eq!(all.len(), 6);
        let ranked = |of: &[(&str, f64)]| Dumped::Ranked(of.iter().map(|(m, s)| (m.to_string(), *s)).collect());
        let seen_members = [("d", 1_763_600_000_123.0), ("b", 1.0), ("a", 1.0), ("", 0.1), ("c", -2.5)];
        assert_eq!(all["od:seen:{u}"], ranked(&seen_members));
        assert_eq!(all["od:gone"], ranked(&[("y", 3.0), ("x", 3.0)]));

        // Whole values replace whole values, of whatever sort; members come and go one by one.
        let overwrites = [
            fields("od:user:{u}", &[("only", "field")], LONG, at(2)),
            fields("od:slate:home:{u}", &[("only", "field")], LONG, at(2)),
            Write::Ranked { key: "od:seen:{u}".into(), members: vec![("z".into(), 1.0)], ttl: LONG, fence: at(2) },
            members(&[("x", None), ("y", Some(4.0))], LONG, at(2)),
        ];
        let all = step(&overwrites, &mark(2));
        let only = [("only", "field"), ("epoch", "2"), ("generation", "1")].map(|(f, v)| (f.to_string(), v.to_string()));
        assert_eq!(all["od:user:{u}"], Dumped::Fields(only.into()));
        assert_eq!((&all["od:seen:{u}"], &all["od:gone"]), (&ranked(&[("z", 1.0)]), &ranked(&[("y", 4.0)])));
        let Dumped::Fields(meta) = &all["od:meta"] else { panic!("meta is a hash") };
        assert_eq!((meta["epoch"].as_str(), meta["offset:events:1"].as_str()), ("2", "2"));

        let sort_of = |dumped: &Dumped| match dumped {
            Dumped::Value(_) => Sort::Value,
            Dumped::Fields(_) => Sort::Fields,
            Dumped::Ranked(_) => Sort::Ranked,
        };
        let delete =
            |(key, dumped): (&String, _)| Write::Delete { key: key.clone(), sort: sort_of(dumped), ttl: LONG, fence: at(3) };
        let mut gone: Vec<Write> = all.iter().filter(|(key, _)| *key != "od:meta").map(delete).collect();
        gone.push(Write::Ranked { key: "od:seen:{v}".into(), members: vec![], ttl: LONG, fence: at(3) });
        gone.push(members(&[("nobody", None)], LONG, at(4)));
        let all = step(&gone, &Applied { epoch: 3, ..Default::default() });
        let Dumped::Fields(meta) = &all["od:meta"] else { panic!("meta is a hash") };
        assert!(!meta.contains_key("offset:events:1"), "an offset that is read no more is gone from it: {meta:?}");
        assert_eq!(all.into_keys().collect::<Vec<_>>(), ["od:meta"]);
    }

    /// Writes of two epochs' and two generations' difference, so that many come too late.
    fn any_fence() -> impl Strategy<Value = Fence> {
        (0u64..12, 1u32..4).prop_map(|(epoch, generation)| Fence { epoch, generation })
    }

    /// A key holds one sort of value, as in the layout.
    fn any_write() -> impl Strategy<Value = Write> {
        let key = |family: &'static str| (0..4).prop_map(move |n| format!("od:{family}:{n}"));
        let word = || "[a-c]{0,2}";
        let score = prop::sample::select(vec![-1.5, 0.0, 1.0, 1e12, 1.0 / 3.0]);
        let sort = prop::sample::select(vec![("neighbours", Sort::Value), ("item", Sort::Fields), ("trending", Sort::Ranked)]);
        let pairs = prop::collection::btree_map(word(), word(), 0..4);
        let ranked = prop::collection::btree_map(word(), score.clone(), 0..4);
        let said = prop::collection::btree_map(word(), prop::option::of(score), 0..4);
        prop_oneof![
            (key("neighbours"), word(), any_fence()).prop_map(|(key, content, fence)| value(&key, &content, LONG, fence)),
            (key("item"), pairs, any_fence()).prop_map(|(key, pairs, fence)| {
                let pairs: Vec<_> = pairs.iter().map(|(f, v)| (f.as_str(), v.as_str())).collect();
                fields(&key, &pairs, LONG, fence)
            }),
            (key("trending"), ranked, any_fence()).prop_map(|(key, members, fence)| {
                Write::Ranked { key, members: members.into_iter().collect(), ttl: LONG, fence }
            }),
            (key("seen"), said, any_fence()).prop_map(|(key, members, fence)| {
                Write::Members { key, members: members.into_iter().collect(), ttl: LONG, fence }
            }),
            (sort, 0..4, any_fence()).prop_map(|((family, sort), n, fence)| {
                Write::Delete { key: format!("od:{family}:{n}"), sort, ttl: LONG, fence }
            }),
        ]
    }

    fn any_mark() -> impl Strategy<Value = Applied> {
        let offsets = || prop::collection::btree_map((Just(Role::Events), 0u32..3), 0u64..9, 0..3);
        (any_fence(), 0u64..9, any::<bool>(), offsets(), offsets()).prop_map(
            |(fence, tick_epoch, rebuilding, offsets, tick_offsets)| {
                let Fence { epoch, generation } = fence;
                Applied {
                    epoch,
                    generation,
                    rebuilding,
                    tick_epoch,
                    offsets,
                    tick_offsets,
                    clock_ms: 1,
                    watermark_ms: 2,
                    serving: Serving::default(),
                }
            },
        )
    }

    #[test]
    fn any_batches_in_any_order_leave_the_same_keys() {
        let server = RedisServer::start();
        let url = server.url();
        let batch = (prop::collection::vec(any_write(), 0..200), any_mark(), prop::option::of(0u64..12));
        let batches = prop::collection::vec(batch, 1..4);
        proptest!(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() }, |(batches in batches)| {
            let (mut memory, mut redis, mut seen) = (Memory::new("od:"), open(&url), connect(&server));
            ask::<()>(&mut seen, &["FLUSHALL"]);
            for (batch, mark, sweep) in &batches {
                same(&mut memory, &mut redis, &mut seen, batch, mark);
                if let Some(before) = sweep {
                    for store in [&mut memory as &mut dyn Store, &mut redis] {
                        while store.sweep(*before, LONG).expect("the store is there") == Swept::Some {}
                    }
                    assert_eq!(seen.dump(), Memory::dump(&memory));
                }
            }
        });
    }

    #[test]
    fn every_key_has_its_lifetime_and_goes_with_it() {
        let server = RedisServer::start();
        let (mut memory, mut redis, mut seen) = (Memory::new("od:"), open(&server.url()), connect(&server));
        let all = same(&mut memory, &mut redis, &mut seen, &each_sort(LONG, at(1)), &Applied::default());
        for key in all.keys() {
            let left: i64 = ask(&mut seen, &["PTTL", key]);
            let stays = key == "od:meta";
            assert!(if stays { left == -1 } else { (1..=LONG.as_millis() as i64).contains(&left) }, "{key}: {left}");
        }
        let short = each_sort(Duration::from_millis(20), at(2));
        memory.write(&short, &Applied::default(), Known::default()).expect("memory is always there");
        redis.write(&short, &Applied::default(), Known::default()).expect("the server is there");
        let all_gone = |dump: Dump| dump.into_keys().eq(["od:meta".to_string()]);
        while !all_gone(Memory::dump(&memory)) || !all_gone(seen.dump()) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A reader who sees the mark of an epoch sees its writes.
    fn the_mark_comes_after_its_writes(mut store: Box<dyn Store>, mut reader: Box<dyn Reader>) {
        let keys: Vec<String> = (0..150).map(|i| format!("od:item:{i}")).collect();
        let done = Arc::new(AtomicBool::new(false));
        let (seen_keys, seen_done) = (keys.clone(), done.clone());
        let reading = std::thread::spawn(move || {
            while !seen_done.load(Ordering::Relaxed) {
                for key in &seen_keys {
                    let epoch = reader.epoch();
                    let value = reader.value(key).map_or(0, |v| layout::open(&v).expect("a whole value").0.epoch);
                    assert!(value >= epoch, "{key} is of epoch {value}, the mark says {epoch}");
                }
            }
            reader.epoch()
        });
        for epoch in 1..=200u64 {
            let writes: Vec<Write> = keys.iter().map(|key| value(key, "", LONG, at(epoch))).collect();
            store.write(&writes, &Applied { epoch, ..Default::default() }, Known::default()).expect("the store is there");
        }
        done.store(true, Ordering::Relaxed);
        assert_eq!(reading.join().expect("the reader saw nothing wrong"), 200);
    }

    #[test]
    fn the_mark_comes_after_its_writes_in_both() {
        let (server, memory) = (RedisServer::start(), Memory::new("od:"));
        the_mark_comes_after_its_writes(Box::new(memory.clone()), Box::new(memory));
        the_mark_comes_after_its_writes(Box::new(open(&server.url())), Box::new(connect(&server)));
    }

    #[test]
    fn a_refusal_is_told_from_an_absence_and_shows_no_secret() {
        let locked = RedisServer::start_with(&["--requirepass", "right-hunter2"]);
        let maimed = RedisServer::start_with(&["--rename-command", "EVALSHA", ""]);
        let full = RedisServer::start_with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
        let told = |url: String| {
            open(&url).write(&each_sort(LONG, at(1)), &Applied::default(), Known::default()).expect_err("it must not work")
        };
        let with = |password: &str| format!("redis://:{password}@127.0.0.1:{}/0", locked.port());
        for (url, says) in [(with("wrong-hunter2"), "WRONGPASS"), (locked.url(), "NOAUTH"), (maimed.url(), "unknown command")] {
            let error = told(url);
            assert!(matches!(error, StoreError::Refused(_)), "{error}");
            let text = error.to_string();
            assert!(!text.contains("hunter2") && text.starts_with("redis at 127.0.0.1:"), "{text}");
            assert!(text.contains(says) || says == "WRONGPASS", "{text}");
        }
        let error = told(full.url());
        assert!(matches!(&error, StoreError::Retry(text) if text.contains("OOM")), "{error}");
        open(&with("right-hunter2"))
            .write(&each_sort(LONG, at(1)), &Applied::default(), Known::default())
            .expect("the right password opens it");
    }

    /// A stream of epochs in which everything happens to a few users and items.
    struct Stream {
        names: Arc<Names>,
        users: Vec<UserId>,
        items: Vec<ItemId>,
    }

    impl Stream {
        fn new() -> Self {
            let names = Arc::new(Names::default());
            let users = (0..40).map(|i| names.user(&format!("u{i}")).expect("no collision")).collect();
            let items = (0..60).map(|i| names.item(&format!("i{i}")).expect("no collision")).collect();
            Self { names, users, items }
        }

        fn epoch(&self, number: u64) -> Completed {
            let pick = |what: u64, of: usize| xxh3_64_with_seed(&number.to_be_bytes(), what) as usize % of;
            let (user, item) = (self.users[pick(1, self.users.len())], self.items[pick(2, self.items.len())]);
            let some = pick(3, 4) > 0;
            let row = |item: &ItemId| SlateItem {
                item: *item,
                score_micro: number as i32,
                source: Source::Fresh,
                reason: Reason::Popular,
                terms: [pick(4, 10_000) as u16; 5],
            };
            let items = self.items[..pick(5, 20)].iter().map(row).collect();
            let (surface, categories, history) = (Surface::HOME, vec![], vec![(overdrive::model::Kind::View, item)]);
            let slate =
                some.then(|| Arc::new(Slate { user, surface, model: None, variant: None, items, categories, history, taken: 1 }));
            let card = some.then(|| (Arc::new(Item { available: true, ..Item::default() }), number as i64));
            let signals = Signals {
                counts: vec![],
                decayed: number as f64,
                velocity: 0.0,
                ctr: 0.1,
                engagement: 0.1,
                weighted_milli: [pick(6, 9) as i64; 5],
            };
            let neighbours = vec![Neighbour { item: self.items[pick(7, 60)], similarity_micro: 5, users: 1 }; usize::from(some)];
            let changes = vec![
                Change::Slate { user, surface: Surface::HOME, slate, entered: vec![item], left: vec![] },
                Change::Signals(SignalKey::Item(item), some.then(|| Arc::new(signals))),
                Change::Seen(
                    user,
                    self.items[..pick(8, 5)].iter().map(|i| (*i, (!number.is_multiple_of(7)).then_some(number as i64))).collect(),
                ),
                Change::Catalogue(item, pick(9, 2) == 0),
                Change::Neighbours(item, neighbours.len() as u32, neighbours),
                Change::Card(item, card),
                Change::Trending(Scope::Global, vec![(item, number as i64)]),
            ];
            completed(number, changes)
        }
    }

    fn completed(number: u64, changes: Vec<Change>) -> Completed {
        let epoch = Epoch {
            number,
            clock_ms: number as i64 * 2,
            watermark_ms: number as i64,
            turn: Turn::all_if(number.is_multiple_of(10)),
            refreshes: None,
            save: false,
            retell: None,
            model: None,
        };
        let partition = (number % 3) as u32;
        let offsets = [((Role::Events, partition), (number, number + 1))].into();
        Completed {
            binding: Binding { epoch, offsets, pace: Pace::default(), serving: Serving::default(), refusals: Vec::new() },
            changes,
            accepted_ms: vec![number as i64],
            save: None,
            retold: None,
        }
    }

    /// A writer over a store, with its files in `dir`.
    fn spawn(
        store: Box<dyn Store>,
        names: &Arc<Names>,
        dir: &Path,
        max_dirty_keys: usize,
        told: Arc<AtomicU64>,
    ) -> (crossbeam_channel::Sender<Completed>, Writer) {
        let defaults: toml::Table = toml::from_str(include_str!("../overdrive.toml")).expect("the defaults");
        let kafka = defaults["kafka"].clone().try_into().expect("the section of Kafka");
        let feed = changes::Params { kind: changes::Kind::File, max_bytes: 1 << 20 };
        let feed = changes::open(&feed, dir, &kafka, names.clone()).expect("the feed opens");
        let encoder = Encoder::new(names.clone(), &super::store_params());
        let retry_max = Duration::from_millis(100);
        let params = writer::Params { generation: 1, max_dirty_keys, retry_max, left: writer::Left::default(), repeats_until: 0 };
        let dead = DeadLetters::open(dir, None).expect("the letters open");
        let (tx, rx) = crossbeam_channel::bounded(4);
        let hooks = Hooks {
            applied: Box::new(move |applied| {
                let before = told.swap(applied.epoch, Ordering::Relaxed);
                assert!(before <= applied.epoch, "epoch {} was told after {before}", applied.epoch);
            }),
            lost: Box::new(|loss| panic!("nothing was lost, but loss {loss} is told")),
        };
        (tx, Writer::spawn(store, encoder, params, rx, feed, dead, hooks).expect("a thread"))
    }

    /// Redis dies in the middle of a stream and comes back: in the end it holds what a store holds that never died.
    #[test]
    fn a_crash_of_redis_is_made_good() {
        // What it acknowledged must survive its crash, or there would be nothing to converge to.
        let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "no"]);
        let (stream, memory) = (Stream::new(), Memory::new("od:"));
        let (dir_a, dir_b) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let told = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let redis = Box::new(open(&server.url()));
        let (to_redis, writer) = spawn(redis, &stream.names, dir_a.path(), 1 << 20, told[0].clone());
        let (to_memory, oracle) = spawn(Box::new(memory.clone()), &stream.names, dir_b.path(), 1 << 20, told[1].clone());
        for number in 1..=600 {
            match number {
                200 => server.kill(),
                400 => server.restart(),
                _ => {}
            }
            to_redis.send(stream.epoch(number)).expect("the writer lives");
            to_memory.send(stream.epoch(number)).expect("the writer lives");
        }
        drop((to_redis, to_memory));
        let (stats, oracle) = (writer.join(), oracle.join());
        assert!(stats.errors > 0, "the crash was noticed");
        assert_eq!((stats.unwritten, stats.skipped, oracle.skipped), (0, 0, 0));
        assert_eq!((&stats.applied, stats.epochs), (&oracle.applied, 600));
        assert_eq!(stats.applied.offsets, [((Role::Events, 0), 601), ((Role::Events, 1), 599), ((Role::Events, 2), 600)].into());
        assert_eq!((stats.applied.tick_epoch, stats.applied.tick_offsets[&(Role::Events, 1)]), (600, 599));
        assert_eq!(told.map(|epoch| epoch.load(Ordering::Relaxed)), [600, 600]);
        let dump = Memory::dump(&memory);
        assert!(dump.len() > 100);
        assert_eq!(connect(&server).dump(), dump);
    }

    #[test]
    fn a_full_writer_takes_no_more_and_gives_up_in_the_end() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
        let (stream, dir) = (Stream::new(), tempfile::tempdir().expect("a folder"));
        let store = Box::new(open(&format!("redis://{free}/0")));
        let (tx, writer) = spawn(store, &stream.names, dir.path(), 10, Arc::new(AtomicU64::new(0)));
        let mut sent = 0;
        let epoch = |n: usize| completed(n as u64 + 1, vec![Change::Catalogue(stream.items[n], true)]);
        while sent < 50 && tx.send_timeout(epoch(sent), Duration::from_millis(300)).is_ok() {
            sent += 1;
        }
        assert!(sent <= 10 + 4, "ten dirty keys and four epochs in the channel are all there is room for, not {sent}");
        drop(tx);
        let stats = writer.join();
        let applied = Applied { generation: 1, ..Default::default() };
        assert_eq!((stats.unwritten, stats.epochs, stats.applied), (sent, sent as u64, applied));
    }

    #[test]
    fn names_feed_and_letters_follow_the_writes() {
        let (stream, memory, dir) = (Stream::new(), Memory::new("od:"), tempfile::tempdir().expect("a folder"));
        let told = Arc::new(AtomicU64::new(0));
        let (tx, writer) = spawn(Box::new(memory.clone()), &stream.names, dir.path(), 1 << 20, told);
        let slate = |user, some: bool, entered| {
            let slate = some.then(|| {
                Arc::new(Slate {
                    user,
                    surface: Surface::HOME,
                    model: None,
                    variant: None,
                    items: vec![],
                    categories: vec![],
                    history: vec![],
                    taken: 0,
                })
            });
            Change::Slate { user, surface: Surface::HOME, slate, entered, left: vec![] }
        };
        let (gone, back, item) = (stream.users[0], stream.users[1], stream.items[0]);
        let dead = Dead { topic: "t".into(), partition: 0, offset: 5, reason: "no".into(), sample: "x".into() };
        tx.send(completed(1, vec![slate(gone, true, vec![item]), slate(back, true, vec![item])])).expect("the writer lives");
        while memory.applied().epoch < 1 {
            std::thread::yield_now();
        }
        let forget =
            vec![slate(gone, false, vec![]), Change::Forgotten(gone), slate(back, true, vec![]), Change::Forgotten(back)];
        tx.send(completed(2, forget)).expect("the writer lives");
        tx.send(completed(3, vec![Change::Dead(dead)])).expect("the writer lives");
        assert!(stream.names.users.get(gone.0).is_some(), "what was read before the deletion may still name the user");
        tx.send(completed(2_000, vec![])).expect("the writer lives");
        drop(tx);
        assert_eq!(writer.join().unwritten, 0);
        assert_eq!(Memory::dump(&memory).into_keys().collect::<Vec<_>>(), ["od:meta", "od:slate:home:{u1}"]);
        assert_eq!(stream.names.users.get(gone.0), None, "when nothing read before can name the user any more, the name goes");
        assert!(stream.names.users.get(back.0).is_some(), "who comes back at once keeps it");
        let lines = |file: &str| std::fs::read_to_string(dir.path().join(file)).expect("it is there");
        let users: Vec<String> =
            lines("slates.jsonl").lines().map(|l| l.split('"').nth(3).expect("a user").to_string()).collect();
        assert_eq!(users.len(), 2);
        assert!(users.contains(&"u0".to_string()) && users.contains(&"u1".to_string()));
        assert!(lines("dead/dead.jsonl").contains("\"epoch\":3"));
    }
}
