//! Pictures as image encoders take them: decoded, made smaller, cut from the middle, three planes of numbers. As `preprocessor_config.json`
//! says, and where it is silent as CLIP wants it. Pixels are weighed as Pillow weighs them, so a model sees what it was trained on.
//!
//! The fact that must stay true: no bytes make it panic, or ask for more memory than it takes to decode the largest picture that is read; of a
//! resized picture only what is kept is ever computed.

use serde::Deserialize;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Pixels of the largest picture that is read.
const MOST_PIXELS: usize = 1 << 24;
/// Longest edge of what an encoder may take.
const MOST_EDGE: usize = 1024;
/// What is so many times longer than it is wide is a line, not a picture.
const LINE: usize = 256;

/// How pictures are made ready.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Made so large: the shorter edge, or both.
    size: Size,
    /// And of that so much is cut from the middle; height and width.
    pub crop: (usize, usize),
    scale: f32,
    mean: [f32; 3],
    deviation: [f32; 3],
    kernel: Kernel,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Size {
    Shorter(usize),
    /// Height and width.
    Both(usize, usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kernel {
    Linear,
    Cubic,
}

/// `preprocessor_config.json`, as far as it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
    size: Option<Edges>,
    crop_size: Option<Edges>,
    rescale_factor: Option<f32>,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
    resample: Option<u8>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Edges {
    One(usize),
    Shorter { shortest_edge: usize },
    Both { height: usize, width: usize },
}

impl Recipe {
    /// Of the text of that file; `None`: as CLIP wants it.
    pub fn read(text: Option<&str>) -> Result<Self, String> {
        const FILE: &str = "preprocessor_config.json";
        let said: Said = text.map_or(Ok(Said::default()), serde_json::from_str).map_err(|e| format!("{FILE}: {e}"))?;
        let deviation = said.image_std.unwrap_or(DEVIATION);
        if !deviation.iter().all(|x| x.is_finite() && *x > 0.0) {
            return Err(format!("{FILE}: image_std is {deviation:?}; numbers are divided by it, so each must be more than 0"));
        }
        if said.do_resize == Some(false) {
            return Err(format!("{FILE}: do_resize is false; pictures come in any size, so it must be true"));
        }
        let cut = said.do_center_crop.unwrap_or(true);
        let size = match said.size.unwrap_or(Edges::One(224)) {
            Edges::One(edge) if !cut => Size::Both(edge, edge),
            Edges::One(edge) | Edges::Shorter { shortest_edge: edge } => Size::Shorter(edge),
            Edges::Both { height, width } => Size::Both(height, width),
        };
        let whole = match size {
            Size::Shorter(edge) => (edge, edge),
            Size::Both(height, width) => (height, width),
        };
        let crop = match said.crop_size.filter(|_| cut) {
            None => whole,
            Some(Edges::One(edge) | Edges::Shorter { shortest_edge: edge }) => (edge, edge),
            Some(Edges::Both { height, width }) => (height, width),
        };
        let fits = (1..=MOST_EDGE).contains(&crop.0) && (1..=MOST_EDGE).contains(&crop.1);
        if !fits || crop.0 > whole.0 || crop.1 > whole.1 || whole.0.max(whole.1) > 2 * MOST_EDGE {
            return Err(format!(
                "{FILE}: of {whole:?} {crop:?} cannot be cut; edges are 1 to {MOST_EDGE}, and no longer than `size`"
            ));
        }
        let kernel = match said.resample.unwrap_or(3) {
            2 => Kernel::Linear,
            3 => Kernel::Cubic,
            other => return Err(format!("{FILE}: resample is {other}; 2 (bilinear) and 3 (bicubic) are known")),
        };
        let scale = if said.do_rescale == Some(false) { 1.0 } else { said.rescale_factor.unwrap_or(1.0 / 255.0) };
        let (mean, deviation) = match said.do_normalize {
            Some(false) => ([0.0; 3], [1.0; 3]),
            _ => (said.image_mean.unwrap_or(MEAN), deviation),
        };
        Ok(Self { size, crop, scale, mean, deviation, kernel })
    }

    /// The numbers of a picture, plane by plane; `None`: it is none that can be read.
    pub fn numbers(&self, bytes: &[u8]) -> Option<Vec<f32>> {
        decoded(bytes).and_then(|picture| self.planes(&picture))
    }

    fn planes(&self, picture: &Picture) -> Option<Vec<f32>> {
        let (short, long) = (picture.height.min(picture.width), picture.height.max(picture.width));
        if long > LINE * short {
            return None;
        }
        let size = match self.size {
            Size::Both(height, width) => (height, width),
            Size::Shorter(edge) if picture.height <= picture.width => (edge, edge * long / short),
            Size::Shorter(edge) => (edge * long / short, edge),
        };
        let middle = picture.middle(size, self.crop, self.kernel);
        let plane = |colour: usize| {
            let of = middle.pixels.iter().skip(colour).step_by(3);
            of.map(move |x| (f32::from(*x) * self.scale - self.mean[colour]) / self.deviation[colour])
        };
        Some((0..3).flat_map(plane).collect())
    }
}

/// What CLIP was trained with.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const DEVIATION: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Red, green and blue of each pixel, row by row.
struct Picture {
    height: usize,
    width: usize,
    pixels: Vec<u8>,
}

/// A PNG or a JPEG, by its first bytes.
fn decoded(bytes: &[u8]) -> Option<Picture> {
    let picture = if bytes.starts_with(b"\x89PNG") { png(bytes) } else { jpeg(bytes) }?;
    let whole = picture.height > 0 && picture.width > 0 && picture.pixels.len() == picture.height * picture.width * 3;
    whole.then_some(picture)
}

fn png(bytes: &[u8]) -> Option<Picture> {
    let limits = png::Limits { bytes: 8 * MOST_PIXELS };
    let mut decoder = png::Decoder::new_with_limits(std::io::Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().ok()?;
    let (height, width) = (reader.info().height as usize, reader.info().width as usize);
    height.checked_mul(width).filter(|pixels| *pixels <= MOST_PIXELS)?;
    let mut read = vec![0; reader.output_buffer_size()?];
    let frame = reader.next_frame(&mut read).ok()?;
    let samples = frame.color_type.samples();
    let colours = |pixel: &[u8]| match samples {
        1 | 2 => [pixel[0]; 3],
        _ => [pixel[0], pixel[1], pixel[2]],
    };
    let pixels = read[..frame.buffer_size()].chunks_exact(samples).flat_map(colours).collect();
    Some(Picture { height, width, pixels })
}

fn jpeg(bytes: &[u8]) -> Option<Picture> {
    let edge = 1 << 14;
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB).set_max_width(edge).set_max_height(edge);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().ok()?;
    let (width, height) = decoder.dimensions()?;
    height.checked_mul(width).filter(|pixels| *pixels <= MOST_PIXELS)?;
    Some(Picture { height, width, pixels: decoder.decode().ok()? })
}

impl Picture {
    /// The middle of what it is in another size: row by row, then column by column, rounded between. Column after column, so that no more is
    /// in memory than one of them and what is kept.
    fn middle(&self, (height, width): (usize, usize), kept: (usize, usize), kernel: Kernel) -> Self {
        let (top, left) = ((height - kept.0) / 2, (width - kept.1) / 2);
        let rows: Vec<_> = (top..top + kept.0).map(|row| weights(row, (self.height, height), kernel)).collect();
        let needed = rows.iter().map(|(first, _)| *first).min().unwrap_or(0)
            ..rows.iter().map(|(first, of)| first + of.len()).max().unwrap_or(0);
        let mut narrow = vec![[0; 3]; self.height];
        let mut pixels = vec![0; kept.0 * kept.1 * 3];
        for column in 0..kept.1 {
            let (first, weights) = weights(left + column, (self.width, width), kernel);
            for row in needed.clone() {
                let from = row * self.width + first;
                narrow[row] = weighed(&weights, |n, colour| self.pixels[(from + n) * 3 + colour]);
            }
            for (row, (first, weights)) in rows.iter().enumerate() {
                let pixel = weighed(weights, |n, colour| narrow[first + n][colour]);
                pixels[(row * kept.1 + column) * 3..][..3].copy_from_slice(&pixel);
            }
        }
        Self { height: kept.0, width: kept.1, pixels }
    }
}

fn weighed(weights: &[f32], of: impl Fn(usize, usize) -> u8) -> [u8; 3] {
    std::array::from_fn(|colour| {
        let sum: f32 = weights.iter().enumerate().map(|(n, weight)| weight * f32::from(of(n, colour))).sum();
        sum.round().clamp(0.0, 255.0) as u8
    })
}

/// The first of the `from` pixels that the `n`th of `to` is made of, and the weight of each.
fn weights(n: usize, (from, to): (usize, usize), kernel: Kernel) -> (usize, Vec<f32>) {
    let scale = from as f64 / to as f64;
    let wide = scale.max(1.0);
    let reach = wide * if kernel == Kernel::Cubic { 2.0 } else { 1.0 };
    let centre = (n as f64 + 0.5) * scale;
    let first = (centre - reach + 0.5).max(0.0) as usize;
    let end = ((centre + reach + 0.5) as usize).min(from);
    let weights: Vec<f64> = (first..end).map(|x| kernel.at((x as f64 - centre + 0.5) / wide)).collect();
    let sum: f64 = weights.iter().sum();
    (first, weights.iter().map(|weight| (weight / sum) as f32).collect())
}

impl Kernel {
    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Linear => (1.0 - x).max(0.0),
            Self::Cubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Cubic if x < 2.0 => ((2.5 - 0.5 * x) * x - 4.0) * x + 2.0,
            Self::Cubic => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(height: usize, width: usize, colour: impl Fn(usize, usize) -> u8) -> Picture {
        let pixels = (0..height).flat_map(|row| (0..width).map(move |column| (row, column)));
        Picture { height, width, pixels: pixels.flat_map(|(row, column)| [colour(row, column); 3]).collect() }
    }

    /// What Pillow 13 makes of a row of eight pixels; it rounds weights too, which may be one off.
    #[test]
    fn pixels_are_weighed_as_pillow_weighs_them() {
        let near = |made: Vec<u8>, theirs: &[u8]| {
            assert!(
                made.len() == theirs.len() && made.iter().zip(theirs).all(|(a, b)| a.abs_diff(*b) <= 1),
                "{made:?} {theirs:?}"
            );
        };
        let row = [0, 255, 10, 200, 30, 90, 255, 0];
        let resized = |width: usize, kernel| -> Vec<u8> {
            let picture = of(1, 8, |_, column| row[column]).middle((1, width), (1, width), kernel);
            picture.pixels.iter().step_by(3).copied().collect()
        };
        assert_eq!(resized(8, Kernel::Cubic), row);
        near(resized(3, Kernel::Linear), &[119, 100, 124]);
        near(resized(3, Kernel::Cubic), &[114, 103, 122]);
        near(resized(12, Kernel::Linear), &[0, 128, 214, 51, 105, 172, 58, 60, 118, 227, 128, 0]);
        near(resized(12, Kernel::Cubic), &[0, 134, 238, 31, 100, 190, 49, 39, 116, 251, 130, 0]);
    }

    #[test]
    fn c43_the_middle_is_cut_out_and_each_colour_has_its_plane() {
        let said = r#"{"size": {"shortest_edge": 4}, "crop_size": {"height": 2, "width": 4}, "rescale_factor": 1,
            "image_mean": [0, 100, 0], "image_std": [1, 2, 4], "do_convert_rgb": true}"#;
        let recipe = Recipe::read(Some(said)).expect("it is sound");
        let planes = recipe.planes(&of(4, 6, |row, column| (row * 10 + column) as u8)).expect("no line");
        assert_eq!(planes[..8], [11.0, 12.0, 13.0, 14.0, 21.0, 22.0, 23.0, 24.0]);
        assert_eq!((planes[8], planes[16], planes.len()), ((11.0 - 100.0) / 2.0, 11.0 / 4.0, 24));
        let clip = Recipe::read(None).expect("as CLIP wants it");
        assert_eq!((clip.crop, clip.size, clip.kernel), ((224, 224), Size::Shorter(224), Kernel::Cubic));
        let whole = Recipe::read(Some(r#"{"do_center_crop": false, "size": 8, "resample": 2}"#)).expect("it is sound");
        assert_eq!((whole.crop, whole.size, whole.kernel), ((8, 8), Size::Both(8, 8), Kernel::Linear));
        for (wrong, says) in [
            (r#"{"size": 100}"#, ""),
            (r#"{"size": 100, "crop_size": 101}"#, "cannot be cut"),
            (r#"{"size": 0}"#, "cannot be cut"),
            (r#"{"image_std": [0.5, 0, 0.5]}"#, "preprocessor_config.json: image_std is [0.5, 0.0, 0.5]"),
            (r#"{"image_std": [1e39, 1, 1]}"#, "image_std"),
            (r#"{"resample": 0}"#, "2 (bilinear) and 3 (bicubic)"),
            (r#"{"size": {"longest_edge": 3}}"#, "preprocessor_config.json"),
        ] {
            let read = Recipe::read(Some(wrong)).err().unwrap_or_default();
            assert!(read.contains(says) && read.is_empty() == says.is_empty(), "{wrong}: {read}");
        }
    }

    /// `Image.new("RGB", (24, 16), (200, 40, 30))` with `(30, 60, 190)` in the right third, saved as JPEG of quality 90 by Pillow 13; and
    /// `Image.new("L", (16, 24), 60)` with 180 in the lower two thirds, quality 90, progressive.
    #[test]
    fn c43_jpegs_are_decoded_in_colour_and_in_grey() {
        let of = |bytes: &[u8]| {
            let picture = decoded(bytes).expect("a picture");
            let mean = |colour: usize| {
                let sum: u32 = picture.pixels.iter().skip(colour).step_by(3).map(|x| u32::from(*x)).sum();
                sum as usize / (picture.height * picture.width)
            };
            ((picture.height, picture.width), [mean(0), mean(1), mean(2)], picture.pixels[..3].to_vec())
        };
        let near = |one: usize, other: usize| one.abs_diff(other) <= 3;
        let (size, mean, first) = of(include_bytes!("../../testdata/pictures/colour.jpg"));
        assert!(size == (16, 24) && near(mean[0], 144) && near(mean[1], 47) && near(mean[2], 83), "{size:?} {mean:?}");
        assert!(first[0] > 190 && first[1] < 50 && first[2] < 40, "{first:?}");
        let (size, mean, first) = of(include_bytes!("../../testdata/pictures/grey.jpg"));
        assert!(size == (24, 16) && mean.into_iter().all(|mean| near(mean, 140)), "{size:?} {mean:?}");
        assert!(first.iter().all(|x| x.abs_diff(60) <= 5), "{first:?}");
        let cut = &include_bytes!("../../testdata/pictures/colour.jpg")[..300];
        assert!(
            decoded(cut).is_none_or(|picture| picture.pixels.len() == 24 * 16 * 3),
            "what is missing is not there, or filled up"
        );
    }

    #[test]
    fn c43_a_line_is_no_picture_and_a_strip_costs_what_is_kept_of_it() {
        for said in [r#"{"size": 2048, "crop_size": 8}"#, r#"{"size": {"height": 2048, "width": 2048}, "crop_size": 8}"#] {
            let recipe = Recipe::read(Some(said)).expect("it is sound");
            for (height, width) in [(1, LINE), (LINE, 1)] {
                assert_eq!(recipe.planes(&of(height, width, |_, _| 7)).map(|planes| planes.len()), Some(3 * 8 * 8));
            }
            assert!(recipe.planes(&of(1, LINE + 1, |_, _| 7)).is_none() && recipe.planes(&of(LINE + 1, 1, |_, _| 7)).is_none());
        }
    }

    fn kernel() -> impl Strategy<Value = Kernel> {
        prop_oneof![Just(Kernel::Linear), Just(Kernel::Cubic)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..3) {
            let head: &[u8] = [&b""[..], b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\xff\xd8\xff\xe0"][kind];
            let _nothing = Recipe::read(None).expect("as CLIP wants it").numbers(&[head, &bytes].concat());
        }

        /// In any size, lines among them: it has as many numbers as it must have, and one colour stays that colour.
        #[test]
        fn c43_pictures_of_any_size_have_their_numbers(
            (height, width, line) in (1usize..90, 1usize..90, 0usize..3),
            (edge, crop) in (1usize..40).prop_flat_map(|edge| (Just(edge), 1..=edge)),
            both: bool,
            kernel in kernel(),
            colour: u8,
        ) {
            let (height, width) = ([height, 1, height][line], [width, width, 1][line]);
            let size = if both { Size::Both(edge, edge) } else { Size::Shorter(edge) };
            let recipe = Recipe { size, crop: (crop, crop), scale: 1.0, mean: [0.0; 3], deviation: [1.0; 3], kernel };
            let numbers = recipe.planes(&of(height, width, |_, _| colour)).expect("no line is so long");
            prop_assert_eq!(numbers, vec![f32::from(colour); 3 * crop * crop]);
        }

        /// What is cut out is what the whole has there.
        #[test]
        fn c43_the_middle_is_that_of_the_whole(
            (height, width) in (1usize..40, 1usize..40),
            (tall, kept_tall) in (1usize..60).prop_flat_map(|edge| (Just(edge), 1..=edge)),
            (wide, kept_wide) in (1usize..60).prop_flat_map(|edge| (Just(edge), 1..=edge)),
            kernel in kernel(),
        ) {
            let picture = of(height, width, |row, column| (row * 97 + column * 41 + row * column) as u8);
            let whole = picture.middle((tall, wide), (tall, wide), kernel);
            let (top, left) = ((tall - kept_tall) / 2, (wide - kept_wide) / 2);
            let cut: Vec<u8> = (top..top + kept_tall)
                .flat_map(|row| whole.pixels[(row * wide + left) * 3..][..kept_wide * 3].to_vec())
                .collect();
            prop_assert_eq!(picture.middle((tall, wide), (kept_tall, kept_wide), kernel).pixels, cut);
        }
    }
}
