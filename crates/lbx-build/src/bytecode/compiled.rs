//! What the compiler program has left of one wheel or folder: where each piece of bytecode is in its file, so that no more
//! of it is in memory than is worked on.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

use lbx_wheel::bytecode::{Compiled as Body, FrameError, Frames, Limits};

/// The pieces, by the name of the member that each was compiled from.
#[derive(Debug)]
pub(super) struct Compiled {
    file: File,
    places: HashMap<String, (u64, usize)>,
}

impl Compiled {
    /// Finds the pieces in a file. `asked` are the members in the order in which they were asked for, each with the path
    /// that its bytecode was to have; nothing is returned where the file answers something else.
    pub(super) fn read<'a>(
        file: File,
        mut asked: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Option<Self>, FrameError> {
        let read = Counted { inner: BufReader::new(file.try_clone()?), count: &Cell::new(0) };
        let count = read.count;
        let mut places = HashMap::new();
        for frame in Frames::new(read, Limits::default()) {
            let frame = frame?;
            let Some((member, cache)) = asked.next() else { return Ok(None) };
            if cache != frame.cache {
                return Ok(None);
            }
            match frame.compiled {
                Body::Pyc(pyc) => {
                    places.insert(member.to_owned(), (count.get() - pyc.len() as u64, pyc.len()));
                }
                Body::Error(why) => tracing::debug!(member, why, "not compiled"),
            }
        }
        Ok(asked.next().is_none().then_some(Self { file, places }))
    }

    /// The bytecode of a member, as the interpreter wrote it; none where there is none.
    pub(super) fn pyc(&self, member: &str) -> io::Result<Option<Vec<u8>>> {
        let Some((offset, size)) = self.places.get(member) else { return Ok(None) };
        let mut bytes = vec![0; *size];
        self.file.read_exact_at(&mut bytes, *offset)?;
        Ok(Some(bytes))
    }
}

/// Counts what is read.
struct Counted<'c, R> {
    inner: R,
    count: &'c Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.set(self.count.get() + read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn frame(kind: u8, cache: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        for size in [cache.len(), body.len()] {
            bytes.extend_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
        }
        [bytes, cache.as_bytes().to_vec(), body.to_vec()].concat()
    }

    fn read(frames: &[Vec<u8>], asked: &[(&str, &str)]) -> Result<Option<Compiled>, FrameError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"lbxpyc01").unwrap();
        file.write_all(&frames.concat()).unwrap();
        file.rewind().unwrap();
        Compiled::read(file, asked.iter().copied())
    }

    #[test]
    fn each_piece_is_found_where_it_is() {
        let frames = [
            frame(b'P', "ac", b"one"),
            frame(b'E', "bc", b"why"),
            frame(b'P', "cc", b"three"),
            frame(b'.', "", b""),
        ];
        let asked = [("a", "ac"), ("b", "bc"), ("c", "cc")];
        let compiled = read(&frames, &asked).unwrap().unwrap();
        assert_eq!(compiled.pyc("c").unwrap().unwrap(), b"three");
        assert_eq!(compiled.pyc("a").unwrap().unwrap(), b"one");
        assert_eq!(compiled.pyc("b").unwrap(), None);
    }

    #[test]
    fn what_was_not_asked_for_is_no_answer() {
        let frames = [frame(b'P', "ac", b"one"), frame(b'.', "", b"")];
        assert!(read(&frames, &[("a", "ac")]).unwrap().is_some());
        assert!(read(&frames, &[("a", "bc")]).unwrap().is_none(), "under another path");
        assert!(read(&frames, &[]).unwrap().is_none(), "more than was asked for");
        assert!(read(&frames, &[("a", "ac"), ("b", "bc")]).unwrap().is_none(), "less than was asked for");
        assert!(read(&frames[..1], &[("a", "ac")]).is_err(), "without an end");
    }
}
