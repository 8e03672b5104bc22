//! Where things are: points on the earth, the cells they lie in (H3), and how far apart they are.
//!
//! What must stay true: a point lies in the same cells on every machine (`h3o` without `std` calculates with `libm`), and what a
//! [`Standing`] keeps of a point is at most six metres off.

use h3o::{CellIndex, LatLng, Resolution};
use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

/// The resolutions of the cells in which things are looked for, the finest first. Their edges: half a kilometre, 4, 26 and 180.
pub const LEVELS: [Resolution; 4] = [Resolution::Eight, Resolution::Six, Resolution::Four, Resolution::Two];

/// The resolution of the cells in which something trends: a town and what is around it.
pub const REGION: Resolution = Resolution::Four;

/// Nearer than this is local.
pub const LOCAL_KM: f64 = 100.0;
/// Nearer than this is regional.
pub const REGION_KM: f64 = 1_000.0;

/// How much nearness matters to who did not say, 0 to 1.
pub const PREFERENCE: f64 = 1.0;

/// 1 here, 1/2 a kilometre away.
pub fn proximity(km: f64) -> f64 {
    1.0 / (1.0 + km)
}

/// A point: degrees, WGS 84.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    lat: f64,
    lon: f64,
}

impl Place {
    /// `None` of what is nowhere on the earth.
    pub fn new(lat: f64, lon: f64) -> Option<Self> {
        ((-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon)).then_some(Self { lat, lon })
    }

    /// The great-circle distance, in kilometres.
    pub fn km(self, other: Self) -> f64 {
        self.point().distance_km(other.point())
    }

    /// The cell of a resolution it lies in.
    pub fn cell(self, level: Resolution) -> Cell {
        Cell(self.point().to_cell(level).into())
    }

    /// The cells it lies in, in the order of [`LEVELS`].
    pub fn cells(self) -> [Cell; LEVELS.len()] {
        LEVELS.map(|level| self.cell(level))
    }

    /// Kilometres to the nearest of some cells, or a little less: to the circles around them.
    pub fn km_to(self, cells: &[Cell]) -> f64 {
        let here = self.point();
        let to = |cell: CellIndex| {
            let middle = LatLng::from(cell);
            let radius = cell.boundary().iter().map(|corner| middle.distance_km(*corner)).fold(0.0, f64::max);
            here.distance_km(middle) - radius
        };
        let cells = cells.iter().filter_map(|cell| CellIndex::try_from(cell.0).ok());
        cells.map(to).fold(f64::INFINITY, f64::min).max(0.0)
    }

    fn point(self) -> LatLng {
        LatLng::new(self.lat, self.lon).expect("a place is finite")
    }
}

/// A cell of H3. Shown as H3 writes it: `881fa6ad0bfffff`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell(pub u64);

impl Cell {
    /// Decides the key group; the number itself ends in the same digits for all.
    pub fn hash(self) -> u64 {
        xxh3_64(&self.0.to_le_bytes())
    }

    /// Whether it is a cell of this resolution.
    pub fn is_of(self, level: Resolution) -> bool {
        CellIndex::try_from(self.0).is_ok_and(|cell| cell.resolution() == level)
    }

    /// The cells `k` steps away, sorted; of 0 the cell itself.
    pub fn ring(self, k: u32) -> Vec<Cell> {
        let Ok(cell) = CellIndex::try_from(self.0) else { return Vec::new() };
        let around: Vec<(CellIndex, u32)> = cell.grid_disk_distances(k);
        let mut ring: Vec<Cell> = around.into_iter().filter(|(_, far)| *far == k).map(|(cell, _)| Cell(cell.into())).collect();
        ring.sort_unstable();
        ring
    }

    /// Reads what [`fmt::Display`] writes; `None` of anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let cell = CellIndex::try_from(u64::from_str_radix(text, 16).ok()?).ok()?;
        Some(Self(cell.into())).filter(|cell| cell.to_string() == text)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// What the list of a cell says of an item.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub place: Place,
    /// 0 to 1.
    pub quality: f64,
}

/// Bits of each coordinate in the number a standing is kept as.
const BITS: u32 = 22;
const STEPS: f64 = (1 << BITS) as f64;

impl Standing {
    /// As one whole number below 2^53, greater for better: quality in 1/255, then latitude and longitude in steps of 1/2^22 of the
    /// way from the south pole to the north, and around the earth.
    pub fn packed(self) -> i64 {
        let step = |part: f64| ((part * STEPS) as i64).clamp(0, (1 << BITS) - 1);
        let quality = (self.quality.clamp(0.0, 1.0) * 255.0).round() as i64;
        let (lat, lon) = (step((self.place.lat + 90.0) / 180.0), step((self.place.lon + 180.0) / 360.0));
        (quality << BITS | lat) << BITS | lon
    }

    /// What [`Standing::packed`] said, the point being the middle of its step; `None` of any other number.
    pub fn unpack(packed: i64) -> Option<Self> {
        let part = |places: u32| (packed >> (places * BITS)) & ((1 << BITS) - 1);
        let quality = packed >> (2 * BITS);
        let place =
            Place { lat: (part(1) as f64 + 0.5) / STEPS * 180.0 - 90.0, lon: (part(0) as f64 + 0.5) / STEPS * 360.0 - 180.0 };
        (0..=255).contains(&quality).then(|| Self { place, quality: quality as f64 / 255.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(lat: f64, lon: f64) -> Place {
        Place::new(lat, lon).expect("on the earth")
    }

    #[test]
    fn distances_and_cells_are_those_of_h3() {
        let (paris, shanghai) = (place(48.864716, 2.349014), place(31.224361, 121.469170));
        assert!((paris.km(shanghai) - 9_262.547).abs() < 0.001);
        // What h3 4.5 in C says of the same point.
        assert_eq!(paris.cells().map(|cell| cell.to_string()), PARIS);
        assert_eq!(Cell::parse(PARIS[0]), Some(paris.cells()[0]));
        for odd in ["", "0", "zz", "881FA6AD0BFFFFF", "0881fb46627fffff", "ffffffffffffffff"] {
            assert_eq!(Cell::parse(odd), None, "{odd}");
        }
        assert_eq!([Place::new(90.1, 0.0), Place::new(0.0, -181.0), Place::new(f64::NAN, 0.0)], [None; 3]);
    }

    const PARIS: [&str; 4] = ["881fb4662dfffff", "861fb4667ffffff", "841fb47ffffffff", "821fb7fffffffff"];

    #[test]
    fn rings_are_around_the_cell_and_meet_across_the_date_line() {
        let here = place(0.0, 180.0).cell(Resolution::Four);
        let there = place(0.1, -179.9).cell(Resolution::Four);
        assert!(here == there || here.ring(1).contains(&there), "{here} and {there} touch");
        let sizes: Vec<usize> = (0..4).map(|k| here.ring(k).len()).collect();
        assert_eq!(sizes, [1, 6, 12, 18]);
        assert_eq!(Cell(7).ring(1), []);
    }

    #[test]
    fn no_point_outside_the_rings_is_nearer_than_the_next_ring() {
        for (lat, lon) in [(48.864716, 2.349014), (0.0, 180.0), (67.1509268, -168.3908885), (-89.9, 17.0)] {
            let here = place(lat, lon);
            for level in LEVELS {
                let cell = here.cell(level);
                let inside: Vec<Cell> = (0..=1).flat_map(|k| cell.ring(k)).collect();
                let sure = here.km_to(&cell.ring(2));
                assert!(sure > 0.0, "{lat} {lon} {level}");
                for direction in 0..360 {
                    let (sin, cos) = (f64::from(direction).to_radians()).sin_cos();
                    let degrees = 0.999 * sure / 111.2;
                    let lon_degrees = degrees * sin / libm::cos(lat.to_radians());
                    let Some(there) = Place::new(lat + degrees * cos, lon + lon_degrees) else { continue };
                    if here.km(there) < sure {
                        assert!(inside.contains(&there.cell(level)), "{direction}: {lat} {lon} {level}");
                    }
                }
            }
        }
        assert_eq!(place(0.0, 0.0).km_to(&[]), f64::INFINITY);
    }

    proptest! {
        #[test]
        fn a_standing_is_kept_to_six_metres(lat in -90.0..=90.0f64, lon in -180.0..=180.0f64, quality in 0.0..=1.0f64) {
            let standing = Standing { place: place(lat, lon), quality };
            let packed = standing.packed();
            prop_assert!((0..1 << 53).contains(&packed) && packed as f64 as i64 == packed);
            let read = Standing::unpack(packed).expect("what was packed");
            prop_assert!(read.place.km(standing.place) < 0.006, "{} km", read.place.km(standing.place));
            prop_assert!((read.quality - quality).abs() <= 0.5 / 255.0 + 1e-9);
            prop_assert_eq!(read.packed(), packed);
        }
    }
}
