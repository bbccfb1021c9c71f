//! Deflate for bytes that no wheel brought compressed. The output depends on the input and on the recipe alone.

use std::io::{self, Read, Write};

use flate2::{Compress, FlushCompress, Status};
use libdeflater::{CompressionLvl, Crc};

use crate::format::{Method, Packed};

/// How hard deflate tries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Effort {
    /// As hard as most tools do: level 6.
    #[default]
    Fast,
    /// As hard as it can: level 12, twenty times slower.
    Max,
}

impl Effort {
    /// The recipe: compressors, versions and levels. Whatever is cached by content must be cached by this as well,
    /// because another version may give other bytes.
    pub const fn recipe(self) -> &'static str {
        match self {
            Self::Fast => "libdeflate/1.26.1/6+zlib-rs/0.6.8/6",
            Self::Max => "libdeflate/1.26.1/12+zlib-rs/0.6.8/9",
        }
    }

    fn level(self) -> i32 {
        match self {
            Self::Fast => 6,
            Self::Max => 12,
        }
    }

    fn level_of_large(self) -> u32 {
        match self {
            Self::Fast => 6,
            Self::Max => 9,
        }
    }
}

/// The recipe id of [`compress`].
pub const COMPRESSOR: &str = "libdeflate/1.26.1/6";

/// From how many bytes on content is large: it goes through [`compress_large`], which does not need it in memory.
pub const LARGE: u64 = 16 << 20;

/// A compressor that is kept for many inputs. Gives the same bytes as [`compress`], without its set-up.
pub struct Compressor {
    inner: libdeflater::Compressor,
}

impl Default for Compressor {
    fn default() -> Self {
        Self::new(Effort::default())
    }
}

impl Compressor {
    /// A compressor that tries so hard.
    pub fn new(effort: Effort) -> Self {
        Self { inner: libdeflater::Compressor::new(CompressionLvl::new(effort.level()).unwrap_or_default()) }
    }

    /// Deflates `data`, or stores it when deflating does not make it smaller.
    pub fn compress(&mut self, data: &[u8]) -> (Packed, Vec<u8>) {
        let mut crc = Crc::new();
        crc.update(data);
        let size = data.len() as u64;
        let packed = Packed { method: Method::Stored, crc32: crc.sum(), compressed_size: size, size };
        // One byte less than the input: a result that is not smaller does not fit and is not wanted.
        let mut out = vec![0; data.len().saturating_sub(1)];
        match self.inner.deflate_compress(data, &mut out) {
            Ok(len) if len > 0 => {
                out.truncate(len);
                (Packed { method: Method::Deflated, compressed_size: len as u64, ..packed }, out)
            }
            _ => (packed, data.to_vec()),
        }
    }
}

/// Deflates `data` in one shot, or stores it when deflating does not make it smaller.
pub fn compress(data: &[u8]) -> (Packed, Vec<u8>) {
    Compressor::default().compress(data)
}

/// The content of which `bytes` are the packed form; none where they are not. The size in `packed` is trusted: so much
/// memory is taken.
pub fn decompress(packed: Packed, bytes: &[u8]) -> Option<Vec<u8>> {
    let size = usize::try_from(packed.size).ok()?;
    let content = match packed.method {
        Method::Stored => bytes.to_vec(),
        Method::Deflated => {
            let mut content = vec![0; size];
            let written = libdeflater::Decompressor::new().deflate_decompress(bytes, &mut content).ok()?;
            content.truncate(written);
            content
        }
    };
    let mut crc = Crc::new();
    crc.update(&content);
    (content.len() == size && crc.sum() == packed.crc32).then_some(content)
}

/// Deflates all that `input` has into `out`, with little memory however much that is. It may come out larger.
///
/// Content is taken in pieces of one size and given on in pieces of one size, so that it makes no difference how `input`
/// comes by it.
pub fn compress_large(mut input: impl Read, mut out: impl Write, effort: Effort) -> io::Result<Packed> {
    const PIECE: usize = 1 << 20;
    let mut deflate = Compress::new(flate2::Compression::new(effort.level_of_large()), false);
    let (mut piece, mut room) = (vec![0; PIECE], vec![0; PIECE]);
    let mut crc = Crc::new();
    loop {
        let count = fill(&mut input, &mut piece)?;
        crc.update(&piece[..count]);
        // A piece that is not full is the last one.
        let flush = if count < PIECE { FlushCompress::Finish } else { FlushCompress::None };
        let mut rest = &piece[..count];
        loop {
            let (before_in, before_out) = (deflate.total_in(), deflate.total_out());
            let status = deflate.compress(rest, &mut room, flush).map_err(io::Error::other)?;
            let taken = usize::try_from(deflate.total_in() - before_in).unwrap_or(rest.len());
            let given = usize::try_from(deflate.total_out() - before_out).unwrap_or(room.len());
            rest = &rest[taken..];
            out.write_all(&room[..given])?;
            if status == Status::StreamEnd {
                let (compressed_size, size) = (deflate.total_out(), deflate.total_in());
                return Ok(Packed { method: Method::Deflated, crc32: crc.sum(), compressed_size, size });
            }
            if rest.is_empty() && given < room.len() && flush == FlushCompress::None {
                break;
            }
        }
    }
}

/// Reads until `piece` is full or there is no more, and returns how much that was.
fn fill(input: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match input.read(&mut piece[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_shrink_is_stored() {
        for data in [&b""[..], b"a", b"ab", b"\x00\xff\x13\x77"] {
            let (packed, bytes) = compress(data);
            assert_eq!(packed.method, Method::Stored);
            assert_eq!(bytes, data);
        }
    }

    #[test]
    fn a_reused_compressor_gives_the_same_bytes() {
        let one = b"import os\n".repeat(1000);
        let two = b"import sys\n".repeat(500);
        let mut kept = Compressor::default();
        kept.compress(&two);
        assert_eq!(kept.compress(&one), compress(&one));
        assert_eq!(kept.compress(&two), compress(&two));
    }

    /// The lock of the workspace has the versions that recipes name.
    #[test]
    fn recipes_name_the_levels_and_versions_in_use() {
        let lock = include_str!("../../../Cargo.lock");
        for effort in [Effort::Fast, Effort::Max] {
            let recipe = effort.recipe();
            let (first, second) = recipe.split_once('+').unwrap();
            assert!(first.ends_with(&format!("/{}", effort.level())), "{recipe}");
            assert!(second.ends_with(&format!("/{}", effort.level_of_large())), "{recipe}");
            let version = second.split('/').nth(1).unwrap();
            assert!(lock.contains(&format!("name = \"zlib-rs\"\nversion = \"{version}\"")), "{recipe}");
            assert!(
                first.contains(concat!("/", "1.26.1", "/"))
                    && lock.contains("name = \"libdeflater\"\nversion = \"1.26.1\"")
            );
        }
        assert!(Effort::Fast.recipe().starts_with(COMPRESSOR));
    }

    fn text(len: usize) -> Vec<u8> {
        let line = |at: usize| format!("line {at} says {}\n", at.wrapping_mul(2_654_435_761) % 1013);
        (0..).map(line).flat_map(String::into_bytes).take(len).collect()
    }

    /// Reads at most so many bytes at once.
    struct Slow<'d>(&'d [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len());
            self.0.read(&mut buffer[..count])
        }
    }

    #[test]
    fn large_content_comes_out_the_same_however_it_is_read_and_inflates_to_itself() {
        for len in [0, 1, 1 << 20, (1 << 20) + 1, 3_500_000] {
            let data = text(len);
            let mut one = Vec::new();
            let packed = compress_large(&data[..], &mut one, Effort::Fast).unwrap();
            let mut other = Vec::new();
            compress_large(Slow(&data, 777), &mut other, Effort::Fast).unwrap();
            assert_eq!(one, other);
            assert_eq!((packed.size, packed.compressed_size), (data.len() as u64, one.len() as u64));
            let mut back = Vec::new();
            flate2::read::DeflateDecoder::new(&one[..]).read_to_end(&mut back).unwrap();
            assert_eq!(back, data);
            assert_eq!(packed.crc32, compress(&data).0.crc32);
        }
    }

    #[test]
    fn what_was_packed_comes_back_and_what_was_changed_does_not() {
        for data in [text(100_000), b"\x00\xff".to_vec(), Vec::new()] {
            let (packed, mut bytes) = compress(&data);
            assert_eq!(decompress(packed, &bytes), Some(data));
            assert_eq!(decompress(Packed { size: packed.size + 1, ..packed }, &bytes), None);
            assert_eq!(decompress(Packed { crc32: !packed.crc32, ..packed }, &bytes), None);
            if let Some(byte) = bytes.first_mut() {
                *byte ^= 0xff;
                assert_eq!(decompress(packed, &bytes), None);
            }
        }
    }

    #[test]
    fn more_effort_gives_fewer_bytes() {
        let data = text(300_000);
        let sizes = [Effort::Fast, Effort::Max].map(|effort| Compressor::new(effort).compress(&data).1.len());
        assert!(sizes[1] < sizes[0], "{sizes:?}");
    }
}
