//! What is near a point: the lists of cells are read ring by ring around it, finer cells before coarser ones, until enough is found.
//!
//! What must stay true: what was found is as far away as is said, measured along the great circle and told to a tenth of a kilometre,
//! and nothing is farther than [`REGION_KM`].

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::read::{Reader, Unavailable};
use crate::model::place::{LEVELS, Place, REGION_KM, Standing, proximity};
use crate::sinks::layout::Keys;

/// What is read in turn: cells of which of the [`LEVELS`], and which rings of them. The last ends beyond [`REGION_KM`].
const TURNS: [(usize, RangeInclusive<u32>); 6] = [(0, 0..=1), (1, 0..=1), (2, 0..=1), (3, 0..=1), (3, 2..=3), (3, 4..=6)];
/// Members of a list that are read.
const MOST: usize = 1_000;
/// From this level on what is near differs by less than a fiftieth in proximity: its best by quality are its best.
const FAR: usize = 3;

/// An item near a point.
#[derive(Clone, Debug, PartialEq)]
pub struct Near {
    pub item_id: String,
    pub km: f64,
    /// 0 to 1.
    pub quality: f64,
}

impl Near {
    /// As far away as it is told.
    pub fn as_told(&self) -> Self {
        Self { km: told(self.km), ..self.clone() }
    }

    /// What orders the list. `preference`: how much nearness matters to the user, 0 to 1. `model`: what the user's slate says of the
    /// item, 0 to 1.
    pub fn score(&self, preference: f64, model: f64) -> f64 {
        1.5 * proximity(self.km) * preference + 1.0 * self.quality + 0.5 * model
    }
}

/// A distance in kilometres as answers tell it, to a tenth: enough to choose by, too little to find the point it is measured from.
pub fn told(km: f64) -> f64 {
    (km * 10.0).round() / 10.0
}

/// What is near `here`: everything in the rings that were read until `enough` said so of what lies within the kilometres that they surely
/// cover, by id; of the coarsest cells the best `wanted`.
pub async fn around(
    here: Place,
    wanted: usize,
    reader: &dyn Reader,
    keys: &Keys,
    enough: impl Fn(&BTreeMap<String, Near>, f64) -> bool,
) -> Result<BTreeMap<String, Near>, Unavailable> {
    let mut found = BTreeMap::new();
    for (level, rings) in TURNS {
        let middle = here.cell(LEVELS[level]);
        let sure = here.km_to(&middle.ring(rings.end() + 1));
        let cells = rings.flat_map(|ring| middle.ring(ring));
        let most = if level < FAR { MOST } else { wanted.min(MOST) };
        let lists: Vec<String> = cells.map(|cell| keys.near(&cell.to_string())).collect();
        for (item_id, packed) in reader.several(&lists, most).await?.into_iter().flatten() {
            let Some(Standing { place, quality }) = Standing::unpack(packed as i64) else { continue };
            let km = here.km(place);
            if km <= REGION_KM {
                found.entry(item_id.clone()).or_insert(Near { item_id, km, quality });
            }
        }
        if enough(&found, sure) {
            break;
        }
    }
    Ok(found)
}
