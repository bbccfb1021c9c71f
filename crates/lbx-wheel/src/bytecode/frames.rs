//! What the compiler program writes: frames, read one at a time, each no larger than allowed.

use std::io::{self, Read};

/// What the file begins with.
const MAGIC: [u8; 8] = *b"lbxpyc01";
/// The kind of a pyc.
const PYC: u8 = b'P';
/// The kind of a source that does not compile.
const ERROR: u8 = b'E';
/// The kind of the end.
const END: u8 = b'.';

/// How large a frame may be. Sizes are in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The path of a pyc.
    pub path: u32,
    /// A pyc.
    pub pyc: u32,
    /// Why a source does not compile.
    pub reason: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { path: 4096, pyc: 64 << 20, reason: 4096 }
    }
}

/// What became of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The path of the pyc, as the job said it. The program that wrote it is not trusted: hold it against the job.
    pub cache: String,
    /// The pyc, or why there is none.
    pub compiled: Compiled,
}

/// What came of compiling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiled {
    /// The pyc as the interpreter wrote it, for [`normalize`](super::normalize).
    Pyc(Vec<u8>),
    /// The source does not compile, for this reason, in one line.
    Error(String),
}

/// Why what the compiler program wrote cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It could not be read at all.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it does not begin as the compiler's output does")]
    Magic,
    /// It was cut off.
    #[error("it ends before its end frame")]
    Truncated,
    /// There are bytes after the end frame.
    #[error("it goes on after its end frame")]
    Trailing,
    /// A kind of frame that there is not.
    #[error("frame {kind:#04x} is not known")]
    Kind {
        /// The kind.
        kind: u8,
    },
    /// A size over its limit.
    #[error("{what} has {size} bytes, expected at most {limit}")]
    TooLarge {
        /// The path, the pyc or the reason.
        what: &'static str,
        /// Its size in bytes.
        size: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// The path, or the reason why a source does not compile, is not one line of UTF-8. Both are shown to users.
    #[error("{what} is not one line of UTF-8")]
    Text {
        /// The path or the reason.
        what: &'static str,
    },
}

/// The frames of one file, in order. After an error there are no more.
#[derive(Debug)]
pub struct Frames<R> {
    read: R,
    limits: Limits,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Frames,
    End,
}

impl<R: Read> Frames<R> {
    /// Reads from the start of a file. It makes many small reads, so give it a buffered reader.
    pub fn new(read: R, limits: Limits) -> Self {
        Self { read, limits, state: State::Start }
    }

    fn read_next(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.state == State::Start && self.array()? != MAGIC {
            return Err(FrameError::Magic);
        }
        self.state = State::Frames;
        let [kind] = self.array()?;
        let (path, body) = (u32::from_le_bytes(self.array()?), u32::from_le_bytes(self.array()?));
        match kind {
            PYC => {
                let cache = self.text("path", path, self.limits.path)?;
                let pyc = self.bytes("pyc", body, self.limits.pyc)?;
                Ok(Some(Frame { cache, compiled: Compiled::Pyc(pyc) }))
            }
            ERROR => {
                let cache = self.text("path", path, self.limits.path)?;
                let reason = self.text("reason", body, self.limits.reason)?;
                Ok(Some(Frame { cache, compiled: Compiled::Error(reason) }))
            }
            END if (path, body) == (0, 0) => self.end(),
            kind => Err(FrameError::Kind { kind }),
        }
    }

    fn end(&mut self) -> Result<Option<Frame>, FrameError> {
        match self.array::<1>() {
            Err(FrameError::Truncated) => Ok(None),
            Ok(_) => Err(FrameError::Trailing),
            Err(error) => Err(error),
        }
    }

    fn text(&mut self, what: &'static str, size: u32, limit: u32) -> Result<String, FrameError> {
        let bytes = self.bytes(what, size, limit)?;
        let text = String::from_utf8(bytes).map_err(|_| FrameError::Text { what })?;
        if text.contains(char::is_control) { Err(FrameError::Text { what }) } else { Ok(text) }
    }

    /// Reads as many bytes as the frame says, and allocates no more than there are.
    fn bytes(&mut self, what: &'static str, size: u32, limit: u32) -> Result<Vec<u8>, FrameError> {
        if size > limit {
            return Err(FrameError::TooLarge { what, size, limit });
        }
        let mut bytes = Vec::new();
        let read = (&mut self.read).take(size.into()).read_to_end(&mut bytes)?;
        if read < size as usize { Err(FrameError::Truncated) } else { Ok(bytes) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let mut array = [0; N];
        self.read.read_exact(&mut array).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => FrameError::Truncated,
            _ => FrameError::Io(error),
        })?;
        Ok(array)
    }
}

impl<R: Read> Iterator for Frames<R> {
    type Item = Result<Frame, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::End {
            return None;
        }
        let next = self.read_next();
        if !matches!(next, Ok(Some(_))) {
            self.state = State::End;
        }
        next.transpose()
    }
}
