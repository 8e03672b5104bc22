//! The messages of `schemas/slate.proto`, by hand; a test below holds every name, number and type against that file.

/// What one user gets on one surface, best first.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Slate {
    #[prost(string, tag = "1")]
    pub user_id: String,
    #[prost(string, tag = "2")]
    pub surface: String,
    /// The clock of the epoch that made it, milliseconds since 1970.
    #[prost(int64, tag = "3")]
    pub as_of_ms: i64,
    #[prost(message, repeated, tag = "4")]
    pub items: Vec<SlateItem>,
    /// The name of what scored it.
    #[prost(string, tag = "5")]
    pub model: String,
    /// The experiment arm; empty: none.
    #[prost(string, tag = "6")]
    pub variant: String,
    /// Of the items, as far as the catalogue names any.
    #[prost(message, repeated, tag = "7")]
    pub categories: Vec<Category>,
    /// The experiment that `variant` is an arm of; empty: none.
    #[prost(string, tag = "8")]
    pub experiment: String,
    /// What the user took lately, latest first.
    #[prost(message, repeated, tag = "9")]
    pub history: Vec<Taken>,
    /// How many items the user took in all.
    #[prost(uint32, tag = "10")]
    pub taken: u32,
}

/// A [`Slate`] without its lists.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SlateShell {
    #[prost(string, tag = "2")]
    pub surface: String,
    #[prost(int64, tag = "3")]
    pub as_of_ms: i64,
    #[prost(string, tag = "5")]
    pub model: String,
    #[prost(string, tag = "6")]
    pub variant: String,
    #[prost(string, tag = "8")]
    pub experiment: String,
}

/// Of a [`Slate`] what the user took lately, latest first, and how many items in all.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SlateHistory {
    #[prost(message, repeated, tag = "9")]
    pub history: Vec<Taken>,
    #[prost(uint32, tag = "10")]
    pub taken: u32,
}

/// An item a user took.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Taken {
    #[prost(string, tag = "1")]
    pub item_id: String,
    /// The name of the weightiest kind of what was done with it.
    #[prost(string, tag = "2")]
    pub interaction: String,
}

/// A category and which items of a slate are of it.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Category {
    #[prost(string, tag = "1")]
    pub name: String,
    /// In the slate, from 0, ascending.
    #[prost(uint32, repeated, tag = "2")]
    pub places: Vec<u32>,
}

/// One place of a slate.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SlateItem {
    #[prost(string, tag = "1")]
    pub item_id: String,
    /// In millionths.
    #[prost(sint32, tag = "2")]
    pub score_micro: i32,
    #[prost(enumeration = "Source", tag = "3")]
    pub source: i32,
    #[prost(message, optional, tag = "4")]
    pub reason: Option<Reason>,
    /// In 1/10000, in the order of [`TERMS`](crate::model::slate::TERMS).
    #[prost(uint32, repeated, tag = "5")]
    pub terms: Vec<u32>,
}

/// The candidate source that spoke loudest for an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Source {
    Unspecified = 0,
    Neighbours = 1,
    Interests = 2,
    Trending = 3,
    Fresh = 4,
    Popular = 5,
    History = 6,
    Explored = 7,
    Content = 8,
    Towers = 9,
}

/// Why an item is there.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Reason {
    #[prost(enumeration = "ReasonKind", tag = "1")]
    pub kind: i32,
    /// `Because`: the name of the interaction, for instance `share`.
    #[prost(string, tag = "2")]
    pub interaction: String,
    /// `Because`: an item's id. `Likes`, `Trending`, `New`: a token without its kind; empty: everywhere.
    #[prost(string, tag = "3")]
    pub subject: String,
}

/// The sorts of reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ReasonKind {
    Unspecified = 0,
    Because = 1,
    Likes = 2,
    Trending = 3,
    New = 4,
    Popular = 5,
}

/// Items taken by the same users, most similar first.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Neighbours {
    #[prost(string, tag = "1")]
    pub item_id: String,
    #[prost(int64, tag = "2")]
    pub as_of_ms: i64,
    #[prost(message, repeated, tag = "3")]
    pub neighbours: Vec<Neighbour>,
    /// Users who have the item in their history.
    #[prost(uint32, tag = "4")]
    pub users: u32,
}

/// One neighbour.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Neighbour {
    #[prost(string, tag = "1")]
    pub item_id: String,
    /// The share of the item's users who took both, in millionths.
    #[prost(sint32, tag = "2")]
    pub similarity_micro: i32,
    /// Users who took both.
    #[prost(uint32, tag = "3")]
    pub users: u32,
}

/// What the catalogue says of an item.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Card {
    #[prost(string, tag = "1")]
    pub item_id: String,
    /// The clock of the epoch that told it, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub as_of_ms: i64,
    /// When it was created; where the catalogue does not say, when it was first named.
    #[prost(int64, tag = "3")]
    pub created_ms: i64,
    #[prost(string, repeated, tag = "4")]
    pub categories: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub tags: Vec<String>,
    #[prost(string, tag = "6")]
    pub author: String,
    #[prost(string, tag = "7")]
    pub title: String,
    #[prost(bool, tag = "8")]
    pub mature: bool,
    #[prost(string, tag = "9")]
    pub language: String,
    #[prost(string, tag = "10")]
    pub city: String,
    #[prost(double, optional, tag = "11")]
    pub lat: Option<f64>,
    #[prost(double, optional, tag = "12")]
    pub lon: Option<f64>,
    /// 0 to 1.
    #[prost(double, optional, tag = "13")]
    pub quality: Option<f64>,
    #[prost(double, optional, tag = "14")]
    pub avg_viewers: Option<f64>,
    #[prost(uint64, optional, tag = "15")]
    pub followers: Option<u64>,
    #[prost(bool, tag = "16")]
    pub partnered: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model;
    use prost::Message;
    use prost_reflect::{DescriptorPool, DynamicMessage, Value};

    fn pool() -> DescriptorPool {
        let root = env!("CARGO_MANIFEST_DIR");
        let files = protox::compile([format!("{root}/schemas/slate.proto")], [format!("{root}/schemas")]).expect("it compiles");
        DescriptorPool::from_file_descriptor_set(files).expect("it links")
    }

    fn full_slate() -> Slate {
        let reason = Reason { kind: ReasonKind::Because as i32, interaction: "share".into(), subject: "i0".into() };
        let item = SlateItem {
            item_id: "i1".into(),
            score_micro: -3,
            source: Source::History as i32,
            reason: Some(reason),
            terms: vec![0, 1, 9_999, 10_000, 70_000],
        };
        Slate {
            user_id: "u".into(),
            surface: "home".into(),
            as_of_ms: 1 << 40,
            items: vec![item],
            model: "m".into(),
            variant: "v".into(),
            categories: vec![Category { name: "jazz".into(), places: vec![0, 300] }],
            experiment: "e".into(),
            history: vec![Taken { item_id: "i0".into(), interaction: "share".into() }],
            taken: 700,
        }
    }

    /// Reads the bytes by the schema: nothing unknown, nothing missing, and the same bytes when written again.
    fn read_by_schema(name: &str, bytes: &[u8]) -> DynamicMessage {
        let message = pool().get_message_by_name(&format!("overdrive.v1.{name}")).expect("the schema has it");
        let read = DynamicMessage::decode(message.clone(), bytes).expect("it decodes");
        assert_eq!(read.unknown_fields().count(), 0);
        for field in message.fields() {
            assert!(read.has_field(&field), "{name}.{} was not written", field.name());
        }
        assert_eq!(read.encode_to_vec(), bytes);
        read
    }

    fn field(message: &DynamicMessage, name: &str) -> Value {
        message.get_field_by_name(name).expect("the schema has it").into_owned()
    }

    #[test]
    fn a_slate_reads_by_its_schema() {
        let slate = read_by_schema("Slate", &full_slate().encode_to_vec());
        assert_eq!(field(&slate, "user_id"), Value::String("u".into()));
        assert_eq!(field(&slate, "surface"), Value::String("home".into()));
        assert_eq!(field(&slate, "as_of_ms"), Value::I64(1 << 40));
        assert_eq!(field(&slate, "model"), Value::String("m".into()));
        assert_eq!(field(&slate, "variant"), Value::String("v".into()));
        assert_eq!(field(&slate, "taken"), Value::U32(700));
        assert_eq!(field(&slate, "experiment"), Value::String("e".into()));
        let categories = field(&slate, "categories");
        let category = categories.as_list().expect("repeated")[0].as_message().expect("a message").clone();
        let category = read_by_schema("Category", &category.encode_to_vec());
        assert_eq!(field(&category, "name"), Value::String("jazz".into()));
        assert_eq!(field(&category, "places"), Value::List(vec![Value::U32(0), Value::U32(300)]));
        let history = field(&slate, "history");
        let taken = history.as_list().expect("repeated")[0].as_message().expect("a message").clone();
        let taken = read_by_schema("Taken", &taken.encode_to_vec());
        assert_eq!(field(&taken, "item_id"), Value::String("i0".into()));
        assert_eq!(field(&taken, "interaction"), Value::String("share".into()));
        let items = field(&slate, "items");
        let item = items.as_list().expect("repeated")[0].as_message().expect("a message").clone();
        let item = read_by_schema("SlateItem", &item.encode_to_vec());
        assert_eq!(field(&item, "item_id"), Value::String("i1".into()));
        assert_eq!(field(&item, "score_micro"), Value::I32(-3));
        assert_eq!(field(&item, "source"), Value::EnumNumber(6));
        let terms = [0, 1, 9_999, 10_000, 70_000].map(Value::U32).to_vec();
        assert_eq!(field(&item, "terms"), Value::List(terms));
        let reason = read_by_schema("Reason", &field(&item, "reason").as_message().expect("a message").encode_to_vec());
        assert_eq!(field(&reason, "kind"), Value::EnumNumber(1));
        assert_eq!(field(&reason, "interaction"), Value::String("share".into()));
        assert_eq!(field(&reason, "subject"), Value::String("i0".into()));
    }

    #[test]
    fn neighbours_read_by_their_schema() {
        let neighbour = Neighbour { item_id: "b".into(), similarity_micro: 500_000, users: 7 };
        let list = Neighbours { item_id: "a".into(), as_of_ms: 5, neighbours: vec![neighbour], users: 9 };
        let read = read_by_schema("Neighbours", &list.encode_to_vec());
        assert_eq!((field(&read, "item_id"), field(&read, "as_of_ms")), (Value::String("a".into()), Value::I64(5)));
        assert_eq!(field(&read, "users"), Value::U32(9));
        let first = field(&read, "neighbours").as_list().expect("repeated")[0].as_message().expect("a message").clone();
        let first = read_by_schema("Neighbour", &first.encode_to_vec());
        assert_eq!(field(&first, "item_id"), Value::String("b".into()));
        assert_eq!((field(&first, "similarity_micro"), field(&first, "users")), (Value::I32(500_000), Value::U32(7)));
    }

    #[test]
    fn a_card_reads_by_its_schema() {
        let card = Card {
            item_id: "a".into(),
            as_of_ms: 5,
            created_ms: 4,
            categories: vec!["jazz".into()],
            tags: vec!["live".into()],
            author: "ann".into(),
            title: "A".into(),
            mature: true,
            language: "de".into(),
            city: "Bonn".into(),
            lat: Some(0.0),
            lon: Some(7.1),
            quality: Some(0.0),
            avg_viewers: Some(0.0),
            followers: Some(15_000),
            partnered: true,
        };
        let read = read_by_schema("Card", &card.encode_to_vec());
        for (name, of) in [("item_id", "a"), ("author", "ann"), ("title", "A"), ("language", "de"), ("city", "Bonn")] {
            assert_eq!(field(&read, name), Value::String(of.into()));
        }
        assert_eq!((field(&read, "as_of_ms"), field(&read, "created_ms")), (Value::I64(5), Value::I64(4)));
        assert_eq!(field(&read, "categories"), Value::List(vec![Value::String("jazz".into())]));
        assert_eq!(field(&read, "tags"), Value::List(vec![Value::String("live".into())]));
        assert_eq!((field(&read, "mature"), field(&read, "lat")), (Value::Bool(true), Value::F64(0.0)));
        assert_eq!((field(&read, "lon"), field(&read, "quality")), (Value::F64(7.1), Value::F64(0.0)));
        let offered = (field(&read, "avg_viewers"), field(&read, "followers"), field(&read, "partnered"));
        assert_eq!(offered, (Value::F64(0.0), Value::U64(15_000), Value::Bool(true)));
    }

    /// The enums of the schema, of this file and of the model have the same names and numbers.
    #[test]
    fn enums_agree() {
        let pool = pool();
        let names = |name: &str| -> Vec<(i32, String)> {
            let values = pool.get_enum_by_name(&format!("overdrive.v1.{name}")).expect("the schema has it");
            values.values().map(|v| (v.number(), v.name().to_string())).collect()
        };
        let sources = names("Source");
        assert_eq!(sources.len(), 1 + model::Source::ALL.len());
        for source in model::Source::ALL {
            let (number, name) = &sources[source as usize];
            assert_eq!((*number, name.as_str()), (source as i32, format!("SOURCE_{}", source.name().to_uppercase()).as_str()));
            let ours = Source::try_from(source as i32).expect("the same numbers");
            assert_eq!(format!("SOURCE_{}", format!("{ours:?}").to_uppercase()), *name);
        }
        for (number, name) in names("ReasonKind") {
            let ours = ReasonKind::try_from(number).expect("the same numbers");
            assert_eq!(format!("REASON_KIND_{}", format!("{ours:?}").to_uppercase()), name);
        }
    }
}
