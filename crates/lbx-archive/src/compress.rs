//! Deflate for bytes that no wheel brought compressed. One call, one buffer: the output depends on the input
//! and on [`COMPRESSOR`] alone.

use libdeflater::{CompressionLvl, Crc};

use crate::format::{Method, Packed};

/// The recipe id of [`compress`]: compressor, version and level. Whatever is cached by content must be cached by
/// this as well, because another version may give other bytes.
pub const COMPRESSOR: &str = "libdeflate/1.26.1/6";

const LEVEL: i32 = 6;

/// A compressor that is kept for many inputs. Gives the same bytes as [`compress`], without its set-up.
pub struct Compressor {
    inner: libdeflater::Compressor,
}

impl Default for Compressor {
    fn default() -> Self {
        Self { inner: libdeflater::Compressor::new(CompressionLvl::new(LEVEL).unwrap_or_default()) }
    }
}

impl Compressor {
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

    #[test]
    fn the_recipe_names_the_level_in_use() {
        assert!(COMPRESSOR.ends_with(&format!("/{LEVEL}")));
    }
}
