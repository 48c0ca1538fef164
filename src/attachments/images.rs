//! Size, thumbnail and blurhash of an image. Whoever uploads it is not trusted: its pixels are bounded before one is
//! decoded, and decoding has threads and memory of its own.

use std::{io::Cursor, sync::Arc, time::Duration};

use bytes::Bytes;
use image::{
    DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, codecs::jpeg::JpegEncoder,
    metadata::Orientation,
};
use tokio::sync::Semaphore;

/// Largest file of which an image is made, in bytes: it is read into memory. A larger one is kept without a size and
/// a thumbnail.
pub(super) const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// Most pixels of an image: the largest cameras of telephones have some 50 million in usual use.
const MAX_PIXELS: u64 = 50_000_000;

/// Memory for decoding, of all images of a replica together: a camera's 50 million pixels fit. An image that takes
/// more is kept without a thumbnail.
const MEMORY_MIB: u32 = 192;
const MIB: u64 = 1024 * 1024;

/// Images that are decoded at once: a quarter of a second of processor each, and the sockets need it too.
const THREADS: usize = 2;

/// How long one image may take, with its wait for others.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Longest side of a thumbnail, in pixels: sharp at 240 points on the usual screens of telephones.
const THUMBNAIL_SIDE: u32 = 480;

/// Quality of a thumbnail in JPEG, in per cent.
const QUALITY: u8 = 80;

/// Side of the image that a blurhash is made of, in pixels; it has no details anyway.
const BLURHASH_SIDE: u32 = 32;

/// What an image was found to be.
#[derive(Debug)]
pub(super) struct Image {
    /// In pixels, as it is shown: a camera's orientation is applied.
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) blurhash: Option<String>,
    /// With its type. `None`: the image itself is not larger.
    pub(super) thumbnail: Option<(Bytes, &'static str)>,
}

/// Why there is no image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// In words for its sender.
    Refused(&'static str),
    TooSlow,
}

/// Decodes images.
#[derive(Debug, Clone)]
pub(super) struct Images {
    threads: Arc<Semaphore>,
    memory: Arc<Semaphore>,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            threads: Arc::new(Semaphore::new(THREADS)),
            memory: Arc::new(Semaphore::new(MEMORY_MIB as usize)),
        }
    }
}

impl Images {
    /// Decodes a file of at most [`MAX_FILE_BYTES`].
    pub(super) async fn read(&self, file: Bytes, format: ImageFormat) -> Result<Image, Fault> {
        let reading = async {
            let header = Header::read(&file, format)?;
            if header.needed > MEMORY_MIB {
                let (width, height) = (header.width, header.height);
                return Ok(Image { width, height, blurhash: None, thumbnail: None });
            }
            // Held by the thread that decodes, which goes on where nobody waits any more.
            let permits = (
                Arc::clone(&self.threads).acquire_owned().await,
                Arc::clone(&self.memory).acquire_many_owned(header.needed).await,
            );
            let decoding = tokio::task::spawn_blocking(move || {
                let decoded = decode(&file, format, &header);
                drop(permits);
                decoded
            });
            // A decoder that panics has met a broken image.
            decoding.await.unwrap_or(Err(BROKEN))
        };
        tokio::time::timeout(TIME_LIMIT, reading).await.unwrap_or(Err(Fault::TooSlow))
    }
}

const BROKEN: Fault = Fault::Refused("have a broken image");
const TOO_LARGE: Fault = Fault::Refused("have an image of more than 50,000,000 pixels");

fn decoder(file: &[u8], format: ImageFormat) -> Result<impl ImageDecoder, Fault> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(u64::from(MEMORY_MIB) * MIB);
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    reader.limits(limits);
    reader.into_decoder().map_err(|_| BROKEN)
}

/// What an image says before its pixels.
struct Header {
    /// As it is shown.
    width: u32,
    height: u32,
    orientation: Orientation,
    /// Memory that decoding takes, in MiB.
    needed: u32,
}

impl Header {
    fn read(file: &[u8], format: ImageFormat) -> Result<Self, Fault> {
        let mut decoder = decoder(file, format)?;
        let (width, height) = decoder.dimensions();
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 {
            return Err(BROKEN);
        }
        if pixels > MAX_PIXELS {
            return Err(TOO_LARGE);
        }
        // Beside the result, a decoder has the coefficients of a progressive JPEG, of two bytes each, and of the
        // others but PNG about as much as the result.
        let times = match format {
            ImageFormat::Png => 1,
            ImageFormat::Jpeg if !is_progressive(file) => 1,
            ImageFormat::Jpeg => 3,
            _ => 2,
        };
        let needed = decoder.total_bytes().saturating_mul(times).div_ceil(MIB);
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let turned = matches!(
            orientation,
            Orientation::Rotate90
                | Orientation::Rotate270
                | Orientation::Rotate90FlipH
                | Orientation::Rotate270FlipH
        );
        let (width, height) = if turned { (height, width) } else { (width, height) };
        let needed = u32::try_from(needed).unwrap_or(u32::MAX);
        Ok(Self { width, height, orientation, needed })
    }
}

/// Whether the frame of a JPEG is a progressive one, by its marker (ITU T.81, table B.1).
fn is_progressive(file: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = file.get(at..at + 4) {
        match marker {
            0xc0 | 0xc1 => return false,
            0xc2 => return true,
            // A marker may be filled with bytes in front of it.
            0xff => at += 1,
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    // Not understood: as much as it could take.
    true
}

fn decode(file: &[u8], format: ImageFormat, header: &Header) -> Result<Image, Fault> {
    let image = DynamicImage::from_decoder(decoder(file, format)?).map_err(|_| BROKEN)?;
    let Header { width, height, orientation, .. } = *header;
    let mut small = if width.max(height) > THUMBNAIL_SIDE {
        let small = image.thumbnail(THUMBNAIL_SIDE, THUMBNAIL_SIDE);
        drop(image);
        small
    } else {
        image
    };
    // Smaller by now, so that turning it costs nothing.
    small.apply_orientation(orientation);
    let thumbnail = if width.max(height) > THUMBNAIL_SIDE { Some(encode(&small)?) } else { None };
    Ok(Image { width, height, blurhash: blurhash_of(&small), thumbnail })
}

/// Writes a thumbnail: JPEG, or PNG where something may be transparent.
fn encode(small: &DynamicImage) -> Result<(Bytes, &'static str), Fault> {
    let mut file = Vec::new();
    let is_opaque = !small.color().has_alpha() || {
        let pixels = small.to_rgba8();
        pixels.pixels().all(|pixel| pixel.0[3] == u8::MAX)
    };
    if is_opaque {
        let pixels = DynamicImage::ImageRgb8(small.to_rgb8());
        let encoder = JpegEncoder::new_with_quality(&mut file, QUALITY);
        pixels.write_with_encoder(encoder).map_err(|_| BROKEN)?;
        return Ok((file.into(), "image/jpeg"));
    }
    let pixels = DynamicImage::ImageRgba8(small.to_rgba8());
    pixels.write_to(&mut Cursor::new(&mut file), ImageFormat::Png).map_err(|_| BROKEN)?;
    Ok((file.into(), "image/png"))
}

/// The type of a thumbnail that [`encode`] has written.
pub(super) fn thumbnail_type(file: &[u8]) -> &'static str {
    if file.starts_with(&[0xff, 0xd8]) { "image/jpeg" } else { "image/png" }
}

fn blurhash_of(image: &DynamicImage) -> Option<String> {
    let pixels = image.thumbnail(BLURHASH_SIDE, BLURHASH_SIDE).to_rgba8();
    // More components along the longer side, as its inventors advise.
    let (x, y) = if pixels.width() >= pixels.height() { (4, 3) } else { (3, 4) };
    blurhash::encode(x, y, pixels.width(), pixels.height(), pixels.as_raw()).ok()
}

#[cfg(test)]
mod tests {
    use image::{ImageBuffer, Rgb, Rgba};

    use super::*;

    fn file(image: &DynamicImage, format: ImageFormat) -> Bytes {
        let mut file = Vec::new();
        image.write_to(&mut Cursor::new(&mut file), format).expect("an image can be written");
        file.into()
    }

    fn photo(width: u32, height: u32) -> DynamicImage {
        DynamicImage::ImageRgb8(ImageBuffer::from_fn(width, height, |x, y| {
            Rgb([x as u8, y as u8, 90])
        }))
    }

    #[tokio::test]
    async fn an_image_has_a_size_a_thumbnail_and_a_blurhash() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
            let image = Images::default().read(file(&photo(1_000, 500), format), format).await;
            let image = image.unwrap_or_else(|fault| panic!("{format:?}: {fault:?}"));
            assert_eq!((image.width, image.height), (1_000, 500), "{format:?}");
            let (thumbnail, kind) = image.thumbnail.expect("a thumbnail");
            assert_eq!(thumbnail_type(&thumbnail), kind);
            let thumbnail = image::load_from_memory(&thumbnail).expect("an image");
            assert_eq!((thumbnail.width(), thumbnail.height()), (480, 240), "{format:?}");
            assert!(image.blurhash.is_some_and(|hash| (20..=64).contains(&hash.len())));
        }
    }

    #[tokio::test]
    async fn what_is_transparent_stays_so_and_what_is_small_has_no_thumbnail() {
        let clear = DynamicImage::ImageRgba8(ImageBuffer::from_pixel(600, 10, Rgba([9, 9, 9, 0])));
        let png = ImageFormat::Png;
        let image = Images::default().read(file(&clear, png), png).await.expect("an image");
        assert_eq!(image.thumbnail.map(|(_, kind)| kind), Some("image/png"));
        let image = Images::default().read(file(&photo(480, 9), png), png).await.expect("an image");
        assert!(image.thumbnail.is_none());
    }

    #[tokio::test]
    async fn a_bomb_is_refused_by_its_header_and_a_broken_image_by_its_pixels() {
        let png = ImageFormat::Png;
        let mut bomb = file(&photo(10, 10), png).to_vec();
        // The header with another size, and the checksum of that.
        bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
        let sum = checksum(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&sum.to_be_bytes());
        let refused = Images::default().read(bomb.into(), png).await;
        assert_eq!(refused.map(|_| ()), Err(TOO_LARGE));
        let whole = file(&photo(900, 900), png);
        let half = whole.slice(..whole.len() / 2);
        assert_eq!(Images::default().read(half, png).await.map(|_| ()), Err(BROKEN));
        assert_eq!(Images::default().read(Bytes::new(), png).await.map(|_| ()), Err(BROKEN));
    }

    #[tokio::test]
    async fn an_image_that_takes_too_much_memory_is_kept_without_a_thumbnail() {
        // Of one colour, so that the file is small.
        let pixels = ImageBuffer::from_pixel(7_000, 7_100, Rgba([1_u16, 2, 3, 4]));
        let large = file(&DynamicImage::ImageRgba16(pixels), ImageFormat::Png);
        let image = Images::default().read(large, ImageFormat::Png).await.expect("an image");
        assert_eq!((image.width, image.height), (7_000, 7_100));
        assert!(image.thumbnail.is_none());
    }

    #[test]
    fn a_baseline_jpeg_is_told_from_a_progressive_one() {
        let mut jpeg = file(&photo(32, 32), ImageFormat::Jpeg).to_vec();
        assert!(!is_progressive(&jpeg));
        let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
        jpeg[frame + 1] = 0xc2;
        assert!(is_progressive(&jpeg));
        assert!(is_progressive(b""));
    }

    /// CRC-32 of a PNG's chunk.
    fn checksum(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |mut crc, byte| {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            }
            crc
        })
    }
}
