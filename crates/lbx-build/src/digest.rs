//! The SHA-256 of what is read, and a checksum for what lbx keeps for itself.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

/// The hash of all that is left to read, with little memory however much that is.
pub(crate) fn sha256(mut from: impl Read) -> io::Result<[u8; 32]> {
    let mut hasher = Hasher(Sha256::new());
    io::copy(&mut from, &mut hasher)?;
    Ok(hasher.0.finalize().into())
}

/// Against accidents, and fast: whoever can write to the store needs no accident.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_all_bytes() {
        let bytes = vec![7; 100_000];
        assert_eq!(sha256(&bytes[..]).unwrap()[..], Sha256::digest(&bytes)[..]);
    }
}
