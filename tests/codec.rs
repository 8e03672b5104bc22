//! The contract of the codec. Golden tables say which shapes are taken and with what words the others are refused; the schema is
//! compiled and compared with our hand-written messages; random bytes show that nothing panics. What these tests cannot see: a
//! foreign system's shape that its makers changed after the tables were written.

use overdrive::codec::protobuf as pb;
use overdrive::codec::{ALIASES, Decoder, Limits, json};
use overdrive::model::content::{Direction, Encoded, Space};
use overdrive::model::ids::{TokenId, TokenKind};
use overdrive::model::interaction::{Control, Event, Input, ModelOrder, Op, Role};
use overdrive::model::serving::{Recipe, Version};
use overdrive::model::{Item, ItemId, Kind, Names, User, UserId};
use proptest::prelude::*;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind as FieldKind, Value as Dynamic};
use serde_json::{Value, json};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// When the log accepted every record of these tests.
const ACCEPTED: i64 = 1_763_000_000_000;

fn decoder() -> Decoder {
    Decoder::new(Arc::default(), Limits::PUBLISHED)
}

fn decode(role: Role, payload: &[u8]) -> Result<Input, String> {
    decoder().decode(role, None, Some(payload), ACCEPTED)
}

fn event(payload: &[u8]) -> Event {
    match decode(Role::Events, payload) {
        Ok(Input::Event(event)) => event,
        other => panic!("{other:?}"),
    }
}

fn item(key: Option<&[u8]>, payload: Value) -> (ItemId, Item) {
    match decoder().decode(Role::Items, key, Some(payload.to_string().as_bytes()), ACCEPTED) {
        Ok(Input::Item(id, Some(item))) => (id, Arc::unwrap_or_clone(item)),
        other => panic!("{other:?}"),
    }
}

fn user(payload: Value) -> (UserId, User) {
    match decode(Role::Users, payload.to_string().as_bytes()) {
        Ok(Input::User(id, Some(user))) => (id, Arc::unwrap_or_clone(user)),
        other => panic!("{other:?}"),
    }
}

fn rows(file: &str) -> Vec<Value> {
    file.lines().map(|line| serde_json::from_str(line).expect("a golden row is JSON")).collect()
}

fn payload(row: &Value) -> Vec<u8> {
    row["text"].as_str().map_or_else(|| row["sent"].to_string(), str::to_string).into_bytes()
}

fn category(name: &str) -> TokenId {
    TokenId::typed(TokenKind::Category, name)
}

fn tag(name: &str) -> TokenId {
    TokenId::typed(TokenKind::Tag, name)
}

#[test]
fn every_accepted_shape_means_exactly_this_event() {
    for row in rows(include_str!("../testdata/codec/accepted.jsonl")) {
        let found = event(&payload(&row));
        let text = |field: &str| row[field].as_str();
        let undo = text("op") == Some("Undo");
        let expected = Event {
            id: text("event_id").map_or(found.id, |id| xxh3_64(id.as_bytes())),
            user: UserId::of(text("user").expect("a golden row names the user")),
            item: ItemId::of(text("item").expect("a golden row names the item")),
            kind: Kind::parse(text("kind").expect("a golden row names the kind")).expect("and it is one"),
            op: if undo { Op::Undo } else { Op::Add },
            at: row["at"].as_i64().expect("a golden row names the time"),
            value_milli: row["value_milli"].as_i64().map(|v| v as i32),
        };
        assert_eq!(found, expected, "{}", row["case"]);
    }
}

#[test]
fn every_refusal_says_what_is_wrong() {
    for row in rows(include_str!("../testdata/codec/refused.jsonl")) {
        let named = |role: &Role| Some(role.name()) == row["role"].as_str();
        let role = Role::ALL.into_iter().find(named).unwrap_or(Role::Events);
        let names = Arc::new(Names::default());
        let decoder = Decoder::new(names.clone(), Limits::PUBLISHED);
        let reason = decoder.decode(role, None, Some(&payload(&row)), ACCEPTED).expect_err(&row["case"].to_string());
        let expected = row["reason"].as_str().expect("a golden row has a reason");
        assert!(reason.contains(expected), "{}: `{reason}` has no `{expected}`", row["case"]);
        assert!(!reason.ends_with('.') && !reason.contains('\n'), "{reason}");
        assert!(names.users.is_empty() && names.items.is_empty() && names.tokens.is_empty(), "{}: left a name", row["case"]);
    }
}

#[test]
fn bytes_and_sizes_are_refused_with_their_place() {
    let reason = |bytes: &[u8]| decode(Role::Events, bytes).expect_err("refused");
    assert_eq!(reason(b"{\"type\":\"vi\xffew\"}"), "the payload is not UTF-8 at byte 11; send UTF-8");
    assert_eq!(reason(&vec![b' '; (1 << 20) + 1]), "the payload has 1048577 bytes; at most 1048576 are allowed");
    assert!(reason(&[0, 0, 0]).contains("schema registry frame"));
    let long = json!({"type": "view", "user_id": "é".repeat(129), "item_id": "i"}).to_string();
    assert_eq!(reason(long.as_bytes()), "`user_id` has 258 bytes; at most 256 are allowed");
    let fits = json!({"type": "view", "user_id": "é".repeat(128), "item_id": "i"}).to_string();
    assert_eq!(event(fits.as_bytes()).user, UserId::of(&"é".repeat(128)));
    let deep = |field: &str| format!("{{\"{field}\":{}", "[".repeat(100_000));
    assert!(reason(deep("x").as_bytes()).contains("EOF while parsing a list"), "passed over without recursion");
    let labels = decode(Role::Items, deep("Labels").as_bytes()).expect_err("refused");
    assert!(labels.contains("field `Labels") && labels.contains("recursion limit exceeded"), "{labels}");
}

#[test]
fn without_a_time_of_its_own_or_the_logs_an_event_is_refused() {
    let payload = br#"{"type":"view","user_id":"u","item_id":"i"}"#;
    let reason = decoder().decode(Role::Events, None, Some(payload), -1).expect_err("no time at all");
    assert_eq!(reason, "`ts` is missing and the log recorded no time; send `ts`");
}

/// The same event sent again has the same id; whatever differs in (user, type, item, ts) or in being an undo, another one.
#[test]
fn an_id_is_made_of_what_the_event_says() {
    let id = |user, kind, item, ts: i64, op| {
        event(json!({"type": kind, "user_id": user, "item_id": item, "ts": ts, "op": op}).to_string().as_bytes()).id
    };
    let t = 1_763_600_000_123;
    let all = [
        id("u", "like", "i", t, "add"),
        id("v", "like", "i", t, "add"),
        id("u", "view", "i", t, "add"),
        id("u", "like", "j", t, "add"),
        id("u", "like", "i", t + 1, "add"),
        id("u", "like", "i", t, "undo"),
    ];
    for (n, one) in all.iter().enumerate() {
        assert!(!all[..n].contains(one), "{n} has the id of another");
    }
    assert_eq!(id("u", "like", "i", t, "add"), all[0]);
}

#[test]
fn two_names_of_one_hash_are_refused() {
    let names = Arc::new(Names::default());
    names.users.intern(UserId::of("u1").0, "somebody else").expect("the first name");
    let decoder = Decoder::new(names, Limits::PUBLISHED);
    let payload = br#"{"type":"view","user_id":"u1","item_id":"i"}"#;
    let reason = decoder.decode(Role::Events, None, Some(payload), ACCEPTED).expect_err("a collision");
    assert_eq!(reason, "the id `u1` has the same 64-bit hash as `somebody else`; rename it");
}

#[test]
fn an_item_of_ours() {
    let (id, found) = item(
        None,
        json!({"item_id": 9, "author_id": "ann", "categories": ["jazz", "live", "jazz"], "tags": ["bebop"], "language": "en",
            "created_at": "2025-11-20T00:53:20Z", "lat": 48.1, "lon": 11.6, "city": "Munich", "quality": 0.7, "mature": true,
            "partnered": true, "followers": 12, "avg_viewers": 8.5, "text": "long", "title": "short", "media_types": ["image"],
            "embedding": [0.5, -1], "image": "AQID", "unknown": {}}),
    );
    let expected = Item {
        author: Some(TokenId::typed(TokenKind::Author, "ann")),
        categories: [category("jazz"), category("live")].into_iter().collect(),
        tags: [tag("bebop")].into_iter().collect(),
        language: Some(TokenId::typed(TokenKind::Language, "en")),
        created_at: Some(1_763_600_000_000),
        lat: Some(48.1),
        lon: Some(11.6),
        city: Some("Munich".into()),
        quality: Some(0.7),
        mature: true,
        available: true,
        partnered: true,
        followers: Some(12),
        avg_viewers: Some(8.5),
        title: Some("short".into()),
        text: Some("long".into()),
        media_types: vec!["image".into()],
        embedding: vec![0.5, -1.0],
        image: Some(Arc::from([1, 2, 3])),
    };
    assert_eq!((id, found), (ItemId::of("9"), expected));
}

#[test]
fn items_of_others() {
    let (id, s4) = item(
        None,
        json!({"stream_id": "stream_000294", "latitude": 48.85, "longitude": 2.35, "city": "Paris", "language": "fr",
            "category_id": 4, "stream_quality_score": 7.2, "avg_viewer_count": 850, "creator_followers": 15000,
            "is_partnered": true, "mature_content": false}),
    );
    assert_eq!((id, s4.lat, s4.lon), (ItemId::of("stream_000294"), Some(48.85), Some(2.35)));
    assert_eq!((s4.quality, s4.avg_viewers, s4.followers), (Some(0.72), Some(850.0), Some(15_000)));
    assert_eq!((s4.partnered, s4.categories.as_slice()), (true, [category("4")].as_slice()));

    let (id, gorse) = item(
        None,
        json!({"ItemId": "vuejs:vue", "IsHidden": true, "Categories": ["js"], "Timestamp": "2022-02-24T00:00:00Z",
            "Labels": {"topics": ["ui", "web"], "size": 3, "licence": "mit"}, "Comment": "A framework"}),
    );
    assert_eq!((id, gorse.available, gorse.created_at), (ItemId::of("vuejs:vue"), false, Some(1_645_660_800_000)));
    assert_eq!(gorse.categories.as_slice(), [category("js")]);
    let mut labels = gorse.tags.to_vec();
    let mut expected = [tag("ui"), tag("web"), tag("mit")];
    labels.sort();
    expected.sort();
    assert_eq!((labels.as_slice(), gorse.title.as_deref()), (expected.as_slice(), Some("A framework")));

    let metarank = json!({"event": "item", "id": "81f46c34", "timestamp": "1599391467000", "item": "product1", "fields": [
        {"name": "title", "value": "Nice jeans"}, {"name": "price", "value": 25.0},
        {"name": "tags", "value": ["blue", "black"]}]});
    let (id, found) = item(None, metarank.clone());
    assert_eq!((id, found.title.as_deref()), (ItemId::of("product1"), Some("Nice jeans")));
    assert_eq!(found.tags.as_slice(), [tag("blue"), tag("black")]);
    let among_events = decode(Role::Events, metarank.to_string().as_bytes()).expect("Metarank has one stream for all");
    assert_eq!(among_events, Input::Item(id, Some(Arc::new(found))));
}

#[test]
fn the_key_names_what_the_payload_does_not_and_alone_it_deletes() {
    let (id, found) = item(Some(b"i7"), json!({"categories": "jazz"}));
    assert_eq!((id, found.categories.as_slice(), found.available), (ItemId::of("i7"), [category("jazz")].as_slice(), true));
    let decoder = decoder();
    let deleted = |role, key: Option<&[u8]>| decoder.decode(role, key, None, ACCEPTED);
    assert_eq!(deleted(Role::Items, Some(b"i7")), Ok(Input::Item(ItemId::of("i7"), None)));
    assert_eq!(deleted(Role::Users, Some(b"u7")), Ok(Input::User(UserId::of("u7"), None)));
    assert_eq!(deleted(Role::Items, None), Err("a deletion without a key; send the item's id as the key".into()));
    assert_eq!(deleted(Role::Users, Some(b"\xff")), Err("the key is not UTF-8 at byte 0; send UTF-8".into()));
    assert!(deleted(Role::Events, Some(b"u7")).expect_err("no deletion of events").contains("without a payload"));
    assert!(deleted(Role::Control, None).expect_err("no deletion of orders").contains("without a payload"));
}

#[test]
fn users_of_ours_and_of_others() {
    let (id, ours) = user(
        json!({"user_id": "u1", "interests": ["jazz", "#vinyl", "category:film", "author:ann"], "language": "de",
        "lat": 48.1, "lon": 11.6, "city": "Munich", "categories": ["film", "sport"], "local_preference": 0.8,
        "blocked_authors": ["bob"], "blocked_items": ["i1", 2], "bio": "hi", "allow_mature": true, "user_total_watch_hours": 120.5}),
    );
    let author = |name| TokenId::typed(TokenKind::Author, name);
    let expected = User {
        interests: [category("jazz"), tag("jazz"), tag("vinyl"), category("film"), author("ann"), category("sport")]
            .into_iter()
            .collect(),
        categories: [category("film"), category("sport")].into_iter().collect(),
        language: Some(TokenId::typed(TokenKind::Language, "de")),
        lat: Some(48.1),
        lon: Some(11.6),
        city: Some("Munich".into()),
        local_preference: Some(0.8),
        blocked_authors: vec![author("bob")],
        blocked_items: vec![ItemId::of("i1"), ItemId::of("2")],
        allow_mature: true,
        bio: Some("hi".into()),
        total_watch_hours: Some(120.5),
    };
    assert_eq!((id, ours), (UserId::of("u1"), expected));

    let (id, gorse) = user(json!({"UserId": "bob", "Labels": ["vue", "rust"], "Comment": "writes"}));
    assert_eq!((id, gorse.bio.as_deref()), (UserId::of("bob"), Some("writes")));
    assert_eq!(gorse.interests.as_slice(), [category("vue"), tag("vue"), category("rust"), tag("rust")]);

    let (id, metarank) = user(json!({"event": "user", "id": "x", "timestamp": "1599391467000", "user": "user1",
        "fields": [{"name": "interests", "value": "#jeans"}, {"name": "age", "value": 33}]}));
    assert_eq!((id, metarank.interests.as_slice()), (UserId::of("user1"), [tag("jeans")].as_slice()));
}

fn merged(mut all: Value, more: Value) -> Value {
    all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    all
}

#[test]
fn c11_an_embedding_of_another_width_is_refused_with_what_to_do() {
    let decoder = Decoder::new(Arc::default(), Limits { dimensions: 3, ..Limits::PUBLISHED });
    let decode = |item: Value| decoder.decode(Role::Items, None, Some(item.to_string().as_bytes()), ACCEPTED);
    let says = "`embedding` has 2 numbers and [content] dimensions is 3; send 3, or change the setting";
    assert_eq!(decode(json!({"item_id": "i", "embedding": [1, 2]})), Err(says.into()));
    assert!(decode(json!({"item_id": "i", "embedding": [1, 2, 3]})).is_ok() && decode(json!({"item_id": "i"})).is_ok());
    let says = decode(json!({"item_id": "i", "image": "not base64"})).expect_err("no image");
    assert!(says.contains("`image` is not in base64") && says.contains("PNG or JPEG"), "{says}");
}

#[test]
fn orders() {
    let order = |payload: Value| decode(Role::Control, payload.to_string().as_bytes());
    let forget = Input::Control(Control::Forget { user: UserId::of("u1") });
    assert_eq!(order(json!({"op": "forget", "user_id": "u1"})), Ok(forget.clone()));
    assert_eq!(order(json!({"type": "forget", "user_id": "u1"})), Ok(forget.clone()));
    assert_eq!(order(json!({"type": "control", "op": "forget", "user_id": "u1", "ts": 1_763_600_000_123_i64})), Ok(forget));
    let mut users = vec![UserId::of("u1"), UserId::of("u2")];
    users.sort();
    let revoke = |from, to| Ok(Input::Control(Control::Revoke { users: users.clone(), from, to }));
    let sent =
        json!({"op": "revoke", "user_ids": ["u1", "u2", "u1"], "from": "2025-11-20T00:53:20Z", "to": 1_763_600_060_000_i64});
    assert_eq!(order(sent), revoke(1_763_600_000_000, 1_763_600_060_000));
    assert_eq!(order(json!({"op": "revoke", "users": ["u1", "u2"]})), revoke(0, i64::MAX));
    let model = |order| Ok(Input::Control(Control::Model(order)));
    let version = Version { name: "lr-1".into(), digest: 0xfe };
    let promote = json!({"op": "model", "version": "lr-1", "digest": "00000000000000fe"});
    assert_eq!(order(promote), model(ModelOrder::Promote(Some(version.clone()))));
    let replace = json!({"op": "model", "version": "lr-1", "digest": "00000000000000fe", "instead_of": "blend"});
    assert_eq!(order(replace), model(ModelOrder::Replace(Some(version), "blend".into())));
    assert_eq!(order(json!({"op": "model", "version": "blend"})), model(ModelOrder::Promote(None)));
    assert_eq!(order(json!({"op": "rollback"})), model(ModelOrder::Rollback));
    assert_eq!(order(json!({"op": "train"})), model(ModelOrder::Train(None)));
    assert_eq!(order(json!({"op": "train", "model": "lr"})), model(ModelOrder::Train(Some(Recipe::Lr))));
    let digest = "00000000000000fe";
    let encoder = Control::Encoder { space: Space::Image, encoder: 0xfe };
    assert_eq!(order(json!({"op": "encoder", "space": "image", "digest": digest})), Ok(Input::Control(encoder)));
    let encoded = |direction: Option<&[i8]>| {
        let direction = direction.map(|numbers| Arc::new(Direction(numbers.into())));
        let of = Encoded { space: Space::Text, content: 1, encoder: 0xfe, direction };
        Ok(Input::Control(Control::Encoded(ItemId::of("i1"), Arc::new(of))))
    };
    let sent = json!({"op": "encoded", "item_id": "i1", "space": "text", "content": "0000000000000001", "digest": digest});
    assert_eq!(order(sent.clone()), encoded(None));
    let with = |direction: &str| [sent.clone(), json!({ "direction": direction })].into_iter().fold(json!({}), merged);
    assert_eq!(order(with("f4EA")), encoded(Some(&[127, -127, 0])));
    let (item_id, space, content) = ("i1".into(), "text".into(), "0000000000000001".into());
    let (op, direction) = (pb::Order::Encoded as i32, vec![127, 129, 0].into());
    let sent_so = pb::Control { op, item_id, space, content, digest: digest.into(), direction, ..Default::default() };
    assert_eq!(decode(Role::Control, &sent_so.encode_to_vec()), encoded(Some(&[127, -127, 0])));
    for (sent, says) in [
        (with("f4E"), "not in base64"),
        (with(""), "0 numbers; it must have 1 to 4096"),
        (with("AAAA"), "one of them not 0"),
        (json!({"op": "encoder", "space": "embedding", "digest": digest}), "encoders are of text or image"),
        (json!({"op": "encoded", "space": "text", "content": digest, "digest": digest}), "`item_id`"),
        (json!({"op": "model"}), "`version`"),
        (json!({"op": "model", "version": "lr-1"}), "`digest`"),
        (json!({"op": "model", "version": "lr-1", "digest": "fe"}), "16 hexadecimal digits"),
        (json!({"op": "train", "model": "towers"}), "`towers`; what can be trained: lr, lambdarank, deepfm"),
        (json!({"op": "model", "version": "lr-1", "digest": "+0000000000000fe"}), "16 hexadecimal digits"),
    ] {
        assert!(order(sent).is_err_and(|why| why.contains(says)), "{says}");
    }
}

/// What the wire structs write is read back as the same event.
#[test]
fn what_we_write_we_read() {
    let wire = json::WireEvent {
        event_id: Some("e".into()),
        kind: "dwell",
        user_id: "u\"".into(),
        item_id: "i".into(),
        ts: 1_763_600_000_123,
        value: Some(12.345),
        op: Some("undo"),
        position: Some(3),
        ctx: Some(json::WireContext { lat: Some(1.5), ..Default::default() }),
        ..Default::default()
    };
    let found = event(&json::event(&wire));
    assert_eq!((found.id, found.user, found.item), (xxh3_64(b"e"), UserId::of("u\""), ItemId::of("i")));
    assert_eq!((found.kind, found.op, found.at, found.value_milli), (Kind::Dwell, Op::Undo, wire.ts, Some(12_345)));
}

fn pool() -> DescriptorPool {
    let schema = protox::compile(["events.proto"], ["schemas"]).expect("the schema compiles");
    DescriptorPool::from_file_descriptor_set(schema).expect("and is complete")
}

/// Our bytes read by the schema, written by the schema, read by us: nothing is lost and nothing is named otherwise.
fn agrees<M: Message + prost::Name + Default + PartialEq + std::fmt::Debug>(
    pool: &DescriptorPool,
    ours: &M,
    expected: &[(&str, Dynamic)],
) {
    let schema = pool.get_message_by_name(&M::full_name()).expect("a message of the schema");
    let theirs = DynamicMessage::decode(schema.clone(), ours.encode_to_vec().as_slice()).expect("our bytes fit the schema");
    assert_eq!(theirs.unknown_fields().count(), 0, "{}: fields the schema has not", M::full_name());
    for (field, value) in expected {
        assert_eq!(&*theirs.get_field_by_name(field).expect(field), value, "{}.{field}", M::full_name());
    }
    assert_eq!(expected.len(), schema.fields().count(), "{}: every field is compared", M::full_name());
    assert!(schema.fields().all(|f| theirs.has_field(&f)), "{}: every field is set", M::full_name());
    assert_eq!(&M::decode(theirs.encode_to_vec().as_slice()).expect("their bytes fit us"), ours);
}

fn strings(words: &[&str]) -> Dynamic {
    Dynamic::List(words.iter().map(|w| Dynamic::String(w.to_string())).collect())
}

fn full_event() -> pb::Event {
    pb::Event {
        event_id: "e".into(),
        r#type: "dwell".into(),
        user_id: "u".into(),
        item_id: "i".into(),
        ts: Some(1_763_600_000_123),
        value: Some(1.5),
        op: pb::Op::Undo as i32,
        session_id: "s".into(),
        request_id: "r".into(),
        position: Some(3),
        surface: "home".into(),
        ctx: Some(pb::Context { device: "ios".into(), locale: "en".into(), lat: Some(1.0), lon: Some(2.0) }),
    }
}

fn full_item() -> pb::Item {
    pb::Item {
        item_id: "i".into(),
        author_id: "a".into(),
        categories: vec!["jazz".into()],
        tags: vec!["bebop".into()],
        language: "en".into(),
        created_at: Some(1_763_600_000_000),
        lat: Some(1.0),
        lon: Some(2.0),
        city: "Munich".into(),
        quality: Some(0.5),
        mature: true,
        available: Some(false),
        partnered: true,
        followers: Some(7),
        avg_viewers: Some(8.0),
        title: "t".into(),
        text: "x".into(),
        media_types: vec!["image".into()],
        embedding: vec![0.5, 1.5],
        image: vec![1, 2, 3].into(),
    }
}

fn full_user() -> pb::User {
    pb::User {
        user_id: "u".into(),
        interests: vec!["jazz".into()],
        language: "en".into(),
        lat: Some(1.0),
        lon: Some(2.0),
        city: "Munich".into(),
        categories: vec!["film".into()],
        local_preference: Some(0.5),
        blocked_authors: vec!["a".into()],
        blocked_items: vec!["i".into()],
        allow_mature: true,
        bio: "b".into(),
        total_watch_hours: Some(9.5),
    }
}

#[test]
fn the_schema_and_our_messages_are_one() {
    let pool = pool();
    let s = |text: &str| Dynamic::String(text.into());
    let mut context = DynamicMessage::new(pool.get_message_by_name("overdrive.v1.Context").expect("in the schema"));
    for (field, value) in [("device", s("ios")), ("locale", s("en")), ("lat", Dynamic::F64(1.0)), ("lon", Dynamic::F64(2.0))] {
        context.set_field_by_name(field, value);
    }
    agrees(
        &pool,
        &full_event(),
        &[
            ("event_id", s("e")),
            ("type", s("dwell")),
            ("user_id", s("u")),
            ("item_id", s("i")),
            ("ts", Dynamic::I64(1_763_600_000_123)),
            ("value", Dynamic::F64(1.5)),
            ("op", Dynamic::EnumNumber(1)),
            ("session_id", s("s")),
            ("request_id", s("r")),
            ("position", Dynamic::U32(3)),
            ("surface", s("home")),
            ("ctx", Dynamic::Message(context)),
        ],
    );
    agrees(
        &pool,
        &full_item(),
        &[
            ("item_id", s("i")),
            ("author_id", s("a")),
            ("categories", strings(&["jazz"])),
            ("tags", strings(&["bebop"])),
            ("language", s("en")),
            ("created_at", Dynamic::I64(1_763_600_000_000)),
            ("lat", Dynamic::F64(1.0)),
            ("lon", Dynamic::F64(2.0)),
            ("city", s("Munich")),
            ("quality", Dynamic::F64(0.5)),
            ("mature", Dynamic::Bool(true)),
            ("available", Dynamic::Bool(false)),
            ("partnered", Dynamic::Bool(true)),
            ("followers", Dynamic::U64(7)),
            ("avg_viewers", Dynamic::F64(8.0)),
            ("title", s("t")),
            ("text", s("x")),
            ("media_types", strings(&["image"])),
            ("embedding", Dynamic::List(vec![Dynamic::F32(0.5), Dynamic::F32(1.5)])),
            ("image", Dynamic::Bytes(vec![1, 2, 3].into())),
        ],
    );
    agrees(
        &pool,
        &full_user(),
        &[
            ("user_id", s("u")),
            ("interests", strings(&["jazz"])),
            ("language", s("en")),
            ("lat", Dynamic::F64(1.0)),
            ("lon", Dynamic::F64(2.0)),
            ("city", s("Munich")),
            ("categories", strings(&["film"])),
            ("local_preference", Dynamic::F64(0.5)),
            ("blocked_authors", strings(&["a"])),
            ("blocked_items", strings(&["i"])),
            ("allow_mature", Dynamic::Bool(true)),
            ("bio", s("b")),
            ("total_watch_hours", Dynamic::F64(9.5)),
        ],
    );
    let revoke = pb::Control {
        op: pb::Order::Revoke as i32,
        user_id: "u".into(),
        user_ids: vec!["v".into()],
        from: Some(1_763_600_000_000),
        to: Some(1_763_600_060_000),
        version: "lr-1".into(),
        digest: "fe".into(),
        model: "lr".into(),
        instead_of: "lr-0".into(),
        item_id: "i".into(),
        space: "text".into(),
        content: "fd".into(),
        direction: vec![1, 255].into(),
    };
    agrees(
        &pool,
        &revoke,
        &[
            ("op", Dynamic::EnumNumber(2)),
            ("user_id", s("u")),
            ("user_ids", strings(&["v"])),
            ("from", Dynamic::I64(1_763_600_000_000)),
            ("to", Dynamic::I64(1_763_600_060_000)),
            ("version", s("lr-1")),
            ("digest", s("fe")),
            ("model", s("lr")),
            ("instead_of", s("lr-0")),
            ("item_id", s("i")),
            ("space", s("text")),
            ("content", s("fd")),
            ("direction", Dynamic::Bytes(vec![1, 255].into())),
        ],
    );
}

/// White space, `{` and zero are no protobuf message's first byte, so a payload's form is never guessed.
#[test]
fn no_message_can_be_taken_for_json() {
    for message in pool().all_messages() {
        for field in message.fields() {
            let length =
                matches!(field.kind(), FieldKind::String | FieldKind::Bytes | FieldKind::Message(_)) || field.is_packed();
            let wire = match field.kind() {
                _ if length => 2,
                FieldKind::Double | FieldKind::Fixed64 | FieldKind::Sfixed64 => 1,
                FieldKind::Float | FieldKind::Fixed32 | FieldKind::Sfixed32 => 5,
                _ => 0,
            };
            let first = (field.number() << 3 | wire).min(255) as u8;
            assert!(!b"\0 \t\r\n{".contains(&first), "{} starts with byte {first:#x}", field.full_name());
        }
    }
}

#[test]
fn items_and_users_mean_the_same_in_both_forms() {
    let as_json = json!({"item_id": "i", "author_id": "a", "categories": ["jazz"], "tags": ["bebop"], "language": "en",
        "created_at": 1_763_600_000_000_i64, "lat": 1.0, "lon": 2.0, "city": "Munich", "quality": 0.5,
        "mature": true, "available": false, "partnered": true, "followers": 7, "avg_viewers": 8.0, "title": "t", "text": "x",
        "media_types": ["image"], "embedding": [0.5, 1.5], "image": "AQID"});
    let expected = decode(Role::Items, as_json.to_string().as_bytes()).expect("an item");
    assert_eq!(decode(Role::Items, &full_item().encode_to_vec()), Ok(expected));
    let as_json = json!({"user_id": "u", "interests": ["jazz"], "language": "en", "lat": 1.0, "lon": 2.0, "city": "Munich",
        "categories": ["film"], "local_preference": 0.5, "blocked_authors": ["a"], "blocked_items": ["i"],
        "allow_mature": true, "bio": "b", "total_watch_hours": 9.5});
    let expected = decode(Role::Users, as_json.to_string().as_bytes()).expect("a user");
    assert_eq!(decode(Role::Users, &full_user().encode_to_vec()), Ok(expected));
    let forget = pb::Control { op: pb::Order::Forget as i32, user_id: "u".into(), ..Default::default() };
    let expected = decode(Role::Control, br#"{"op":"forget","user_id":"u"}"#).expect("an order");
    assert_eq!(decode(Role::Control, &forget.encode_to_vec()), Ok(expected));
    assert_eq!(
        decode(Role::Control, &pb::Control::default().encode_to_vec()),
        Err("the payload is empty; send a JSON object or a protobuf message".into())
    );
    let unknown = pb::Event { op: 7, ..full_event() };
    assert_eq!(decode(Role::Events, &unknown.encode_to_vec()), Err("unknown op `7`; known: add, undo".into()));
}

#[test]
fn schema_registry_framing_is_skipped() {
    let json = br#"{"type":"view","user_id":"u","item_id":"i","ts":1763600000123}"#;
    let framed = [&[0, 0, 0, 1, 2], json.as_slice()].concat();
    assert_eq!(event(&framed), event(json));
    let message = full_event().encode_to_vec();
    for indexes in [&[0][..], &[2, 0], &[4, 0, 2]] {
        let framed = [&[0, 0, 0, 1, 2], indexes, &message].concat();
        assert_eq!(event(&framed), event(&message), "{indexes:?}");
    }
}

/// The JSON schemas name the kinds and the fields that the code has.
#[test]
fn the_json_schemas_are_ours() {
    let schema = |text: &str| serde_json::from_str::<Value>(text).expect("a schema is JSON");
    let fields = |schema: &Value| -> Vec<String> {
        let mut names: Vec<_> = schema["properties"].as_object().expect("properties").keys().cloned().collect();
        names.sort();
        names
    };
    let message = |name: &str| -> Vec<String> {
        let message = pool().get_message_by_name(name).expect("in the schema");
        let mut names: Vec<_> = message.fields().map(|f| f.name().to_string()).collect();
        names.sort();
        names
    };
    let events = schema(include_str!("../schemas/event.schema.json"));
    assert_eq!(events["properties"]["type"]["enum"], json!(Kind::ALL.map(Kind::name)));
    assert_eq!(fields(&events), message("overdrive.v1.Event"));
    assert_eq!(fields(&schema(include_str!("../schemas/item.schema.json"))), message("overdrive.v1.Item"));
    assert_eq!(fields(&schema(include_str!("../schemas/user.schema.json"))), message("overdrive.v1.User"));
    assert_eq!(fields(&schema(include_str!("../schemas/control.schema.json"))), message("overdrive.v1.Control"));
}

/// A valid payload of a role, to be damaged.
fn valid(role: Role) -> Vec<Vec<u8>> {
    let golden = |file| rows(file).iter().map(payload).collect::<Vec<_>>();
    match role {
        Role::Events => {
            let mut all = golden(include_str!("../testdata/codec/accepted.jsonl"));
            all.push(full_event().encode_to_vec());
            all.push([&[0, 0, 0, 0, 1, 0], full_event().encode_to_vec().as_slice()].concat());
            all
        }
        Role::Items => vec![
            full_item().encode_to_vec(),
            br#"{"ItemId":"i","Labels":{"a":["b"]},"Timestamp":"2022-02-24"}"#.to_vec(),
            br##"{"event":"item","item":"i","fields":[{"name":"tags","value":["x"]}]}"##.to_vec(),
        ],
        Role::Users => vec![full_user().encode_to_vec(), br##"{"user_id":"u","interests":["#a","author:b"]}"##.to_vec()],
        Role::Control => vec![br#"{"op":"revoke","user_ids":["a"],"from":"2022-02-24","to":1763600000123}"#.to_vec()],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..64), brace in any::<bool>(), key in any::<Option<Vec<u8>>>(),
    ) {
        let mut payload = if brace { b"{".to_vec() } else { Vec::new() };
        payload.extend(bytes);
        for role in Role::ALL {
            let _ = decoder().decode(role, key.as_deref(), Some(&payload), ACCEPTED);
            let _ = decoder().decode(role, key.as_deref(), None, ACCEPTED);
        }
    }

    #[test]
    fn damaged_payloads_never_panic(
        pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        for role in Role::ALL {
            let all = valid(role);
            let mut payload = all[pick.index(all.len())].clone();
            prop_assert!(decoder().decode(role, None, Some(&payload), ACCEPTED).is_ok());
            let place = at.index(payload.len());
            payload[place] = byte;
            let _ = decoder().decode(role, None, Some(&payload), ACCEPTED);
            payload.truncate(cut.index(payload.len()));
            let _ = decoder().decode(role, None, Some(&payload), ACCEPTED);
        }
    }

    #[test]
    fn an_event_means_the_same_in_json_and_protobuf(
        event_id in "[a-z{ \n]{0,8}", kind in 0..Kind::ALL.len() + ALIASES.len(),
        user_id in "\\PC{1,20}", item_id in "\\PC{1,20}",
        ts in proptest::option::of(631_152_000_000_i64..7_258_118_400_000), value in proptest::option::of(-1e6..1e6), undo in any::<bool>(),
    ) {
        let kind = Kind::ALL.map(Kind::name).into_iter().chain(ALIASES.iter().map(|a| a.0)).nth(kind).expect("in range");
        let op = if undo { "undo" } else { "add" };
        let mut as_json = json!({"type": kind, "user_id": user_id, "item_id": item_id, "ts": ts, "value": value, "op": op});
        if !event_id.is_empty() {
            as_json["event_id"] = json!(event_id);
        }
        let op = if undo { pb::Op::Undo } else { pb::Op::Add } as i32;
        let message = pb::Event { event_id, r#type: kind.into(), user_id, item_id, ts, value, op, ..Default::default() };
        let from_json = decode(Role::Events, as_json.to_string().as_bytes());
        prop_assert_eq!(decode(Role::Events, &message.encode_to_vec()), from_json);
    }
}
