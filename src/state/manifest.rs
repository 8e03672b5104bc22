//! A manifest: what a snapshot consists of. It carries the BLAKE3 of itself, so that a manifest with one bit changed is no manifest.
//! Pure: names and bytes.

use serde::{Deserialize, Serialize};

use super::Head;
use super::segment::Segment;

/// Of manifests written here; others are refused.
pub const FORMAT: u32 = 1;
/// A longer manifest is none.
pub const MOST: u64 = 64 << 20;

const BEFORE_DIGEST: &str = "{\"blake3\":\"";
const BEFORE_BODY: &str = "\",\n\"manifest\":";
const AFTER_BODY: &str = "}\n";

/// The name of a manifest's file says which snapshot it is. The order is that of preference, the last first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub epoch: u64,
    pub generation: u32,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "manifest-{:020}-{:010}.json", self.epoch, self.generation)
    }
}

impl Name {
    /// `None` for any other file.
    pub fn parse(file: &str) -> Option<Self> {
        let (epoch, generation) = file.strip_prefix("manifest-")?.strip_suffix(".json")?.split_once('-')?;
        let name = Self { epoch: epoch.parse().ok()?, generation: generation.parse().ok()? };
        (name.to_string() == file).then_some(name)
    }
}

/// A snapshot without its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub generation: u32,
    /// When it was written, by the clock of the machine, in ms since 1970. For people.
    pub written_ms: i64,
    /// The manifest before it. For people.
    pub parent: Option<String>,
    pub head: Head,
    pub parts: Vec<Files>,
}

/// One operator's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    pub uid: String,
    pub files: Vec<Segment>,
}

/// Why bytes are no manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// They are not what was written.
    Damaged(String),
    /// They are, but of another version.
    Foreign(String),
}

impl Refused {
    /// The file, and what is wrong with it.
    pub fn what(self) -> String {
        let (Self::Damaged(what) | Self::Foreign(what)) = self;
        what
    }
}

impl Manifest {
    /// The name it must have.
    pub fn name(&self) -> Name {
        Name { epoch: self.head.epoch.number, generation: self.generation }
    }

    /// All segments it names.
    pub fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.parts.iter().flat_map(|part| &part.files)
    }

    /// As bytes: JSON, with the digest of the inner value before it.
    pub fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_string(self).expect("numbers, texts and lists are JSON");
        framed(&body).into_bytes()
    }

    /// From the bytes of the file `name`.
    pub fn decode(name: Name, bytes: &[u8]) -> Result<Self, Refused> {
        let body = body(bytes).map_err(|e| Refused::Damaged(format!("{name} {e}")))?;
        // A newer format may look quite different: ask for that first.
        let Format { format } =
            serde_json::from_str(body).map_err(|e| Refused::Damaged(format!("{name} does not say its format: {e}")))?;
        if format != FORMAT {
            return Err(Refused::Foreign(format!(
                "{name} has format {format}, this version of Overdrive reads {FORMAT}; start the version that wrote it"
            )));
        }
        let manifest: Self = serde_json::from_str(body).map_err(|e| Refused::Damaged(format!("{name} makes no sense: {e}")))?;
        if manifest.name() != name {
            return Err(Refused::Damaged(format!("{name} is {} by its content", manifest.name())));
        }
        let sound = manifest.segments().try_for_each(Segment::check);
        sound.map_err(|e| Refused::Damaged(format!("{name} {e}")))?;
        Ok(manifest)
    }
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn framed(body: &str) -> String {
    let digest = blake3::hash(body.as_bytes()).to_hex();
    format!("{BEFORE_DIGEST}{digest}{BEFORE_BODY}{body}{AFTER_BODY}")
}

/// The inner value, when every byte of the file is as it was written.
fn body(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("is no text: {e}"))?;
    let begins = text.strip_prefix(BEFORE_DIGEST).and_then(|text| text.split_at_checked(64));
    let begins = begins.and_then(|(digest, text)| Some((digest, text.strip_prefix(BEFORE_BODY)?)));
    let (expected, text) = begins.ok_or_else(|| "does not begin as a manifest does".to_string())?;
    let body = text.strip_suffix(AFTER_BODY).ok_or_else(|| "does not end as a manifest does".to_string())?;
    let found = blake3::hash(body.as_bytes()).to_hex();
    if found.as_str() == expected { Ok(body) } else { Err(format!("blake3 expected {expected} found {found}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, Pace, Role, Serving, Turn};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn manifest(path: &str) -> Manifest {
        let epoch = Epoch {
            number: 4812,
            clock_ms: 7,
            watermark_ms: -3,
            turn: Turn { from: 900, to: 1024 },
            refreshes: Some(9),
            save: true,
            retell: None,
            model: None,
        };
        let positions = BTreeMap::from([((Role::Events, 3), u64::MAX), ((Role::Control, 0), 0)]);
        let pace = Pace { unticked: 1, turn: 3, full: 2 };
        let head = Head { epoch, pace, serving: Serving::default(), positions, workers: 4, config: "c0ffee".into() };
        let segment = Segment { path: path.into(), first: 0, last: 1023, rows: 2, bytes: 3, blake3: "ab".repeat(32) };
        let parts = vec![Files { uid: "ledger.1".into(), files: vec![segment] }];
        Manifest { format: FORMAT, generation: 7, written_ms: 1, parent: None, head, parts }
    }

    fn sound() -> Manifest {
        manifest(&format!("segments/{}.parquet", "ab".repeat(32)))
    }

    #[test]
    fn what_was_encoded_is_decoded_and_its_name_is_read() {
        let manifest = sound();
        assert_eq!(Manifest::decode(manifest.name(), &manifest.encode()), Ok(manifest.clone()));
        assert_eq!(Name::parse(&manifest.name().to_string()), Some(manifest.name()));
        for other in ["manifest-1-2.json", "manifest.json", "lock", "manifest-00000000000000004812-00000000070.json"] {
            assert_eq!(Name::parse(other), None);
        }
    }

    #[test]
    fn a_path_out_of_the_folder_is_refused() {
        for path in ["segments/../../etc/passwd", "/etc/passwd", "", &format!("segments/{}.parquet", "AB".repeat(32))] {
            let planted = manifest(path);
            let refused = Manifest::decode(planted.name(), &planted.encode()).expect_err("no segment");
            assert!(matches!(&refused, Refused::Damaged(text) if text.contains("which is no segment")), "{refused:?}");
        }
    }

    #[test]
    fn another_format_is_told_apart_from_damage() {
        let newer = Manifest { format: 2, ..sound() };
        let refused = Manifest::decode(newer.name(), &newer.encode()).expect_err("not read");
        assert!(matches!(&refused, Refused::Foreign(text) if text.contains("has format 2")), "{refused:?}");
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_found() {
        let (name, bytes) = (sound().name(), sound().encode());
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(Manifest::decode(name, &changed), Err(Refused::Damaged(_))), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(matches!(Manifest::decode(name, &bytes[..cut]), Err(Refused::Damaged(_))), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused(bytes in vec(any::<u8>(), 0..300)) {
            prop_assert!(Manifest::decode(sound().name(), &bytes).is_err());
            // Even when their digest agrees.
            prop_assert!(Manifest::decode(sound().name(), framed(&String::from_utf8_lossy(&bytes)).as_bytes()).is_err());
        }
    }
}
