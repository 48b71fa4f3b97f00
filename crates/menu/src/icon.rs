//! Pictures: a guest's PNG becomes pixels of a fixed size, and those a PNG of ours with a frame in the
//! compartment's color.
//!
//! The two halves are for two processes. Who decodes has nothing to lose; who encodes gets a fixed number
//! of bytes, each of which may be anything, and draws the frame over them.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Encoder, Limits, Transformations};

use crate::limits::MAX_SIDE;

/// Width and height of what is made, in pixels.
pub const SIDE: usize = 128;

/// Bytes of what is made: red, green, blue and opacity of each pixel, by rows.
pub const PIXELS: usize = SIDE * SIDE * 4;

/// Width of the frame, in pixels.
const FRAME: usize = 7;

/// Width and height of the room inside, with some air between it and the frame.
const ROOM: usize = SIDE - 2 * (FRAME + 3);

/// Bytes that decoding may allocate beside the pixels: four times the largest picture's are not needed.
const MEMORY: usize = 16 * 1024 * 1024;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum IconError {
    /// It is no PNG, or is too large to be decoded.
    #[error("could not read its icon")]
    Decode(#[from] png::DecodingError),
    /// More than [`MAX_SIDE`], or nothing.
    #[error("its icon is {0}×{1}; at most {MAX_SIDE}×{MAX_SIDE} are taken")]
    Size(u32, u32),
    /// Colors that are no three bytes, or opacities of none.
    #[error("its icon has a broken palette")]
    Palette,
}

/// Reads a PNG file and fits it into the room inside a frame. Nothing is allocated for a picture before
/// its size is known to be small.
///
/// # Errors
/// See [`IconError`].
pub fn decode(file: &[u8]) -> Result<Vec<u8>, IconError> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(file), Limits { bytes: MEMORY });
    decoder.set_transformations(Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info()?;
    let (width, height) = (header.width, header.height);
    let allowed = 1..=MAX_SIDE;
    if !allowed.contains(&width) || !allowed.contains(&height) {
        return Err(IconError::Size(width, height));
    }
    let mut reader = decoder.read_info()?;
    if !is_whole(reader.info()) {
        return Err(IconError::Palette);
    }
    let (width, height) = (width as usize, height as usize);
    let size = reader.output_buffer_size().filter(|size| *size <= width * height * 4);
    let mut buffer = vec![0; size.ok_or(png::DecodingError::LimitsExceeded)?];
    let info = reader.next_frame(&mut buffer)?;
    let channels = match info.color_type {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba | ColorType::Indexed => 4,
    };
    let whole = info.width as usize == width && info.height as usize == height;
    let Some(samples) = buffer.get(..width * height * channels).filter(|_| whole) else {
        return Err(png::DecodingError::LimitsExceeded.into());
    };
    let pixels = samples.chunks_exact(channels).map(|sample| match *sample {
        [gray] => [gray, gray, gray, 255],
        [gray, opacity] => [gray, gray, gray, opacity],
        [red, green, blue] => [red, green, blue, 255],
        [red, green, blue, opacity] => [red, green, blue, opacity],
        _ => [0; 4],
    });
    Ok(fit(&pixels.collect::<Vec<_>>(), width, height))
}

/// Whether a palette, where there is one, has whole colors and no more opacities than colors: the crate up
/// to 0.18.1 counts on it (image-png, issue 694).
fn is_whole(info: &png::Info<'_>) -> bool {
    let colors = info.palette.as_ref().map_or(0, |palette| palette.len());
    let opacities = info.trns.as_ref().map_or(0, |opacities| opacities.len());
    let indexed = info.color_type == ColorType::Indexed;
    !indexed || (colors.is_multiple_of(3) && colors <= 3 * 256 && opacities <= colors / 3)
}

/// The picture in the middle: made smaller by averages, larger by whole numbers.
fn fit(pixels: &[[u8; 4]], width: usize, height: usize) -> Vec<u8> {
    let larger = width.max(height);
    let scaled = |length: usize| match larger > ROOM {
        true => (length * ROOM / larger).max(1),
        false => length * (ROOM / larger),
    };
    let (wide, high) = (scaled(width), scaled(height));
    let (left, top) = ((SIDE - wide) / 2, (SIDE - high) / 2);
    let mut out = vec![0; PIXELS];
    for y in 0..high {
        let rows = part(y, high, height);
        for x in 0..wide {
            let columns = part(x, wide, width);
            let at = ((top + y) * SIDE + left + x) * 4;
            out[at..at + 4].copy_from_slice(&average(pixels, width, rows.clone(), columns));
        }
    }
    out
}

/// Which of `of` pixels the one at `at` of `count` is made from; never none.
fn part(at: usize, count: usize, of: usize) -> std::ops::Range<usize> {
    let begin = at * of / count;
    begin..((at + 1) * of / count).max(begin + 1)
}

/// The mean color, each as much as it is opaque.
fn average(
    pixels: &[[u8; 4]],
    width: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
) -> [u8; 4] {
    let count = (rows.len() * columns.len()) as u64;
    let mut sums = [0u64; 4];
    for row in rows {
        for [red, green, blue, opacity] in &pixels[row * width..][columns.clone()] {
            let opacity = u64::from(*opacity);
            for (sum, color) in sums.iter_mut().zip([red, green, blue]) {
                *sum += u64::from(*color) * opacity;
            }
            sums[3] += opacity;
        }
    }
    let [red, green, blue, opacity] = sums;
    match opacity {
        0 => [0; 4],
        _ => {
            [red / opacity, green / opacity, blue / opacity, opacity / count].map(|part| part as u8)
        }
    }
}

/// A window without anything, for an application whose picture cannot be had.
pub fn blank(color: [u8; 3]) -> Vec<u8> {
    let mut out = vec![0; PIXELS];
    for (at, pixel) in out.chunks_exact_mut(4).enumerate() {
        let (x, y) = (at % SIDE, at / SIDE);
        let inside =
            |from: usize, to: usize| (24..SIDE - 24).contains(&x) && (from..to).contains(&y);
        if inside(30, 46) {
            pixel.copy_from_slice(&[color[0], color[1], color[2], 255]);
        } else if inside(46, SIDE - 30) {
            pixel.copy_from_slice(&[0xe8, 0xe8, 0xe8, 255]);
        }
    }
    out
}

/// A PNG file of these pixels inside a frame of this color. None when they are not [`PIXELS`] bytes.
pub fn encode(pixels: &[u8], color: [u8; 3]) -> Option<Vec<u8>> {
    let mut pixels = (pixels.len() == PIXELS).then(|| pixels.to_vec())?;
    let edge = |at: usize| !(FRAME..SIDE - FRAME).contains(&at);
    for (at, pixel) in pixels.chunks_exact_mut(4).enumerate() {
        if edge(at % SIDE) || edge(at / SIDE) {
            pixel.copy_from_slice(&[color[0], color[1], color[2], 255]);
        }
    }
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out, SIDE as u32, SIDE as u32);
    encoder.set_color(ColorType::Rgba);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(&pixels).ok()?;
    writer.finish().ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [u8; 3] = [0xcc, 0x22, 0x22];

    /// A PNG file of one color.
    fn file(width: u32, height: u32, kind: ColorType, depth: BitDepth, sample: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, width, height);
        encoder.set_color(kind);
        encoder.set_depth(depth);
        let mut writer = encoder.write_header().expect("a header");
        writer.write_image_data(&sample.repeat((width * height) as usize)).expect("written");
        writer.finish().expect("ended");
        out
    }

    /// A PNG file whose header says so, with a right sum, before these chunks.
    fn forged(width: u32, height: u32, rest: &[u8]) -> Vec<u8> {
        let mut small = file(1, 1, ColorType::Rgba, BitDepth::Eight, &[0; 4]);
        small[16..20].copy_from_slice(&width.to_be_bytes());
        small[20..24].copy_from_slice(&height.to_be_bytes());
        let sum = crc(&small[12..29]).to_be_bytes();
        small[29..33].copy_from_slice(&sum);
        small.truncate(33);
        small.extend_from_slice(rest);
        small
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 * (sum & 1)))
        })
    }

    fn chunk(kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
        let body = [&kind[..], payload].concat();
        [&(payload.len() as u32).to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
    }

    fn at(pixels: &[u8], x: usize, y: usize) -> [u8; 4] {
        let at = (y * SIDE + x) * 4;
        [pixels[at], pixels[at + 1], pixels[at + 2], pixels[at + 3]]
    }

    #[test]
    fn pictures_of_all_kinds_and_sizes_come_inside_the_frame() {
        use {BitDepth::*, ColorType::*};
        for (width, height, kind, depth, sample, shown) in [
            (48, 48, Rgba, Eight, &[1, 2, 3, 200][..], [1, 2, 3, 200]),
            (256, 256, Rgb, Eight, &[9, 8, 7], [9, 8, 7, 255]),
            (1024, 100, Grayscale, Eight, &[77], [77, 77, 77, 255]),
            (1, 1, GrayscaleAlpha, Eight, &[5, 6], [5, 5, 5, 6]),
            (64, 128, Rgba, Sixteen, &[1, 0, 2, 0, 3, 0, 255, 255], [1, 2, 3, 255]),
        ] {
            let pixels = decode(&file(width, height, kind, depth, sample)).expect("a picture");
            assert_eq!(at(&pixels, SIDE / 2, SIDE / 2), shown, "{width}×{height}");
            let framed = encode(&pixels, RED).expect("a file");
            assert_eq!(decode(&framed).expect("our own").len(), PIXELS);
            for near in 0..FRAME + 3 {
                assert_eq!(at(&pixels, near, SIDE / 2), [0; 4], "{width}×{height}");
                assert_eq!(at(&pixels, SIDE / 2, SIDE - 1 - near), [0; 4], "{width}×{height}");
            }
        }
    }

    #[test]
    fn the_frame_is_drawn_over_whatever_the_pixels_are() {
        let framed = encode(&[0xff; PIXELS], RED).expect("a file");
        let mut reader = Decoder::new(Cursor::new(framed)).read_info().expect("a picture");
        let mut pixels = vec![0; PIXELS];
        reader.next_frame(&mut pixels).expect("decoded");
        let edge = |at: usize| !(FRAME..SIDE - FRAME).contains(&at);
        for (x, y) in (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (x, y))) {
            let expected = if edge(x) || edge(y) { [0xcc, 0x22, 0x22, 255] } else { [255; 4] };
            assert_eq!(at(&pixels, x, y), expected);
        }
        assert_eq!(encode(&[0; PIXELS - 4], RED), None);
        assert!(encode(&blank(RED), RED).is_some());
    }

    #[test]
    fn a_picture_that_says_it_is_huge_is_refused_by_its_header() {
        for (width, height) in [(1025, 1), (1, 1025), (0x7fff_ffff, 0x7fff_ffff), (65_535, 65_535)]
        {
            let found = decode(&forged(width, height, b""));
            assert!(
                matches!(found, Err(IconError::Size(w, h)) if (w, h) == (width, height))
                    || matches!(found, Err(IconError::Decode(_))),
                "{width}×{height}: {found:?}"
            );
        }
        assert!(decode(&forged(0, 5, b"")).is_err());
    }

    #[test]
    fn palettes_are_read_and_broken_ones_refused() {
        let of = |palette: &[u8], opacities: &[u8]| {
            let mut header = forged(2, 1, b"");
            header[25] = 3;
            let sum = crc(&header[12..29]).to_be_bytes();
            header[29..33].copy_from_slice(&sum);
            // One row of two pixels, stored.
            let data = [0x78, 1, 1, 3, 0, 0xfc, 0xff, 0, 1, 0, 0, 5, 0, 2];
            decode(
                &[
                    header,
                    chunk(b"PLTE", palette),
                    chunk(b"tRNS", opacities),
                    chunk(b"IDAT", &data),
                    chunk(b"IEND", b""),
                ]
                .concat(),
            )
        };
        let pixels = of(&[1, 2, 3, 4, 5, 6], &[7]).expect("a picture");
        assert_eq!(at(&pixels, SIDE / 4, SIDE / 2), [4, 5, 6, 255]);
        for (palette, opacities) in [
            (&[1, 2, 3, 4][..], &[][..]),
            (&[1, 2, 3, 4, 5], &[]),
            (&[1, 2, 3], &[1, 2]),
            (&[1; 900], &[]),
        ] {
            assert!(of(palette, opacities).is_err(), "{}", palette.len());
        }
    }

    #[test]
    fn bombs_and_rubbish_make_no_picture() {
        // A megabyte that unpacks to a gigabyte, in the data and in a text.
        let zeros = vec![0u8; 1 << 20];
        let mut packed = Vec::new();
        {
            let mut encoder = Encoder::new(&mut packed, 1024, 1024);
            encoder.set_color(ColorType::Grayscale);
            let mut writer = encoder.write_header().expect("a header");
            writer.write_image_data(&zeros).expect("written");
        }
        let data = packed.windows(4).position(|four| four == b"IDAT").expect("data");
        let length = u32::from_be_bytes(packed[data - 4..data].try_into().expect("four"));
        let data = &packed[data + 4..data + 4 + length as usize];
        // Much more than one pixel has, one made of too little, one with a foreign end.
        let text = [b"zTXt".as_slice(), b"k\0\0", data].concat();
        let text = chunk(b"zTXt", &text[4..]);
        let image = chunk(b"IDAT", data);
        let end = chunk(b"IEND", b"");
        let cut = decode(&forged(1024, 1024, &[&image[..], &end].concat()));
        assert!(cut.is_err(), "too little for its size");
        let much = decode(&forged(1, 1, &[&text[..], &image, &end].concat()));
        assert!(much.is_ok_and(|pixels| pixels.len() == PIXELS), "the rest is not unpacked");
        assert!(decode(b"").is_err());
        assert!(decode(b"<svg xmlns='http://www.w3.org/2000/svg'/>").is_err());
        let whole = file(32, 32, ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 4]);
        for cut in 0..whole.len() - 12 {
            let _ = decode(&whole[..cut]);
        }
        for flipped in 0..whole.len() {
            let mut file = whole.clone();
            file[flipped] ^= 0x55;
            let _ = decode(&file);
        }
    }
}
