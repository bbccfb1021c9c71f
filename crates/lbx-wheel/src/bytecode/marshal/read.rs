//! Reading a marshal stream. Containers that are open are kept in a list, not on the stack.

use super::objects::{FIELDS_BEFORE_LINE, Graph, Kind, Layout};
use super::{MAX_DEPTH, MarshalError};

/// Set in a type code if the object gets a number.
pub(super) const FLAG: u8 = 0x80;

/// In the list of numbered objects, one that is not complete.
const OPEN: u32 = u32::MAX;

/// Reads the objects of the stream that starts at `at`. The last of them is the code object.
pub(super) fn read<'p>(pyc: &'p [u8], at: usize, layout: &Layout) -> Result<Graph<'p>, MarshalError> {
    let mut reader = Reader {
        pyc,
        at,
        layout,
        graph: Graph::default(),
        numbered: Vec::new(),
        open: Vec::new(),
        parts: Vec::new(),
    };
    reader.run()?;
    Ok(reader.graph)
}

struct Reader<'p, 'l> {
    pyc: &'p [u8],
    at: usize,
    layout: &'l Layout,
    graph: Graph<'p>,
    /// The objects that can be referred to.
    numbered: Vec<u32>,
    open: Vec<Container<'p>>,
    /// The parts of all open containers, one after the other.
    parts: Vec<u32>,
}

/// A container, some parts of which are not read yet.
struct Container<'p> {
    kind: Kind,
    /// Where its type code is.
    start: usize,
    /// Its place among the numbered objects, if it has one.
    number: Option<usize>,
    bytes: &'p [u8],
    line: [u8; 4],
    /// Where its own parts begin.
    first: usize,
    /// The number of its parts. A dictionary does not say it.
    count: Option<usize>,
}

/// What comes next in the stream.
enum Next {
    Object(u32),
    /// A container was opened.
    Open,
    /// The end of a dictionary.
    Null,
}

impl<'p> Reader<'p, '_> {
    fn run(&mut self) -> Result<(), MarshalError> {
        loop {
            let start = self.at;
            let mut complete = match self.next()? {
                Next::Object(id) => {
                    self.parts.push(id);
                    self.full()
                }
                Next::Open => self.full(),
                Next::Null => {
                    self.end_dictionary(start)?;
                    true
                }
            };
            while complete {
                let id = self.close()?;
                if self.open.is_empty() {
                    return self.end(id);
                }
                self.parts.push(id);
                complete = self.full();
            }
            if self.open.is_empty() {
                return Err(MarshalError::Malformed { at: start, what: "it is not a code object" });
            }
            self.line()?;
        }
    }

    /// Whether the innermost container has all its parts.
    fn full(&self) -> bool {
        self.open.last().is_some_and(|open| open.count == Some(self.parts.len() - open.first))
    }

    /// Reads the first line of a code object if that is what comes next.
    fn line(&mut self) -> Result<(), MarshalError> {
        let read = self.parts.len();
        let due = |open: &&mut Container<'_>| {
            open.kind == Kind::Code && open.number_of_parts(read) == FIELDS_BEFORE_LINE
        };
        if self.open.last_mut().as_ref().is_some_and(due) {
            let line = self.array()?;
            if let Some(open) = self.open.last_mut() {
                open.line = line;
            }
        }
        Ok(())
    }

    fn end_dictionary(&self, at: usize) -> Result<(), MarshalError> {
        let pairs = |open: &&Container<'_>| {
            open.kind == Kind::Dict && open.number_of_parts(self.parts.len()).is_multiple_of(2)
        };
        match self.open.last().as_ref().filter(|open| pairs(open)) {
            Some(_) => Ok(()),
            None => Err(MarshalError::Malformed { at, what: "it is no object, where one is needed" }),
        }
    }

    fn end(&self, id: u32) -> Result<(), MarshalError> {
        if self.graph.get(id).kind != Kind::Code {
            return Err(MarshalError::Malformed { at: super::HEADER, what: "it is not a code object" });
        }
        if self.at < self.pyc.len() {
            return Err(MarshalError::Trailing { at: self.at });
        }
        Ok(())
    }

    /// Makes an object of the innermost container.
    fn close(&mut self) -> Result<u32, MarshalError> {
        let open = self.open.pop().expect("a container is full, so one is open");
        let parts = self.parts.split_off(open.first);
        if open.kind == Kind::Code && !self.layout.fits(&self.graph, &parts) {
            return Err(MarshalError::Malformed {
                at: open.start,
                what: "a field of the code object has another type",
            });
        }
        let id = self.graph.container(open.kind, open.bytes, open.line, parts);
        if let Some(number) = open.number {
            self.numbered[number] = id;
        }
        Ok(id)
    }

    fn next(&mut self) -> Result<Next, MarshalError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(MarshalError::Depth);
        }
        let start = self.at;
        let code = self.byte()?;
        let flagged = code & FLAG != 0;
        if let Some(kind) = singleton(code) {
            return Ok(Next::Object(self.graph.leaf(kind, &[], false)));
        }
        match code & !FLAG {
            b'0' if !flagged => Ok(Next::Null),
            b'r' if !flagged => self.reference(start).map(Next::Object),
            other => match self.container(other, code, start)? {
                Some(container) => self.opened(container, flagged),
                None => self.leaf(other, code, start, flagged).map(Next::Object),
            },
        }
    }

    fn opened(&mut self, mut container: Container<'p>, flagged: bool) -> Result<Next, MarshalError> {
        // Every object takes a byte at least, so this many are not there.
        if container.count.is_some_and(|count| count > self.pyc.len() - self.at) {
            return Err(MarshalError::Truncated { at: self.at });
        }
        if flagged {
            container.number = Some(self.numbered.len());
            self.numbered.push(OPEN);
        }
        self.open.push(container);
        Ok(Next::Open)
    }

    fn reference(&mut self, start: usize) -> Result<u32, MarshalError> {
        let index = u32::from_le_bytes(self.array()?);
        match self.numbered.get(index as usize) {
            Some(&id) if id != OPEN => Ok(id),
            _ => Err(MarshalError::Reference { index, at: start }),
        }
    }

    /// The head of a container, or nothing if the type code is not that of one.
    fn container(&mut self, kind: u8, code: u8, start: usize) -> Result<Option<Container<'p>>, MarshalError> {
        let (kind, bytes, count): (_, &[u8], _) = match kind {
            b')' => (Kind::Tuple, &[], Some(usize::from(self.byte()?))),
            b'(' => (Kind::Tuple, &[], Some(self.size()?)),
            b'[' => (Kind::List, &[], Some(self.size()?)),
            b'<' => (Kind::Set, &[], Some(self.size()?)),
            b'>' => (Kind::FrozenSet, &[], Some(self.size()?)),
            b'{' => (Kind::Dict, &[], None),
            b':' if self.layout.slices => (Kind::Slice, &[], Some(3)),
            b':' => return Err(MarshalError::Type { code, at: start }),
            b'c' => (Kind::Code, self.take(self.layout.numbers)?, Some(self.layout.fields())),
            _ => return Ok(None),
        };
        let first = self.parts.len();
        Ok(Some(Container { kind, start, number: None, bytes, line: [0; 4], first, count }))
    }

    fn leaf(&mut self, kind: u8, code: u8, start: usize, flagged: bool) -> Result<u32, MarshalError> {
        let malformed = |what| MarshalError::Malformed { at: start, what };
        let (kind, bytes) = match kind {
            b'i' => (Kind::Int, self.take(4)?),
            b'l' => (Kind::Long, self.long().and_then(|long| long.ok_or(malformed("it is no integer")))?),
            b'g' => (Kind::Float, self.take(8)?),
            b'y' => (Kind::Complex, self.take(16)?),
            b'f' => (Kind::TextFloat, self.short_texts(1)?),
            b'x' => (Kind::TextComplex, self.short_texts(2)?),
            b's' => (Kind::Bytes, self.sized()?),
            b'z' | b'Z' => {
                let size = usize::from(self.byte()?);
                (Kind::Ascii, self.take(size)?)
            }
            b'a' | b'A' => (Kind::Ascii, self.sized()?),
            b'u' | b't' => (Kind::Unicode, self.sized()?),
            _ => return Err(MarshalError::Type { code, at: start }),
        };
        if kind == Kind::Ascii && !bytes.is_ascii() {
            return Err(malformed("it is no ASCII"));
        }
        if kind == Kind::Unicode && !is_wtf8(bytes) {
            return Err(malformed("it is no UTF-8"));
        }
        let id = self.graph.leaf(kind, bytes, matches!(code & !FLAG, b'Z' | b'A' | b't'));
        if flagged {
            self.numbered.push(id);
        }
        Ok(id)
    }

    /// An integer of any size, with its number of digits. Nothing if CPython would refuse it.
    fn long(&mut self) -> Result<Option<&'p [u8]>, MarshalError> {
        let start = self.at;
        let digits = i32::from_le_bytes(self.array()?).unsigned_abs() as usize;
        let size = digits.checked_mul(2).ok_or(MarshalError::Truncated { at: self.at })?;
        let (digits, _) = self.take(size)?.as_chunks::<2>();
        let mut digits = digits.iter().map(|&digit| u16::from_le_bytes(digit));
        let fits = digits.clone().all(|digit| digit < 1 << 15) && digits.next_back() != Some(0);
        Ok(fits.then_some(&self.pyc[start..self.at]))
    }

    /// Strings with their sizes in a byte each.
    fn short_texts(&mut self, count: usize) -> Result<&'p [u8], MarshalError> {
        let start = self.at;
        for _ in 0..count {
            let size = usize::from(self.byte()?);
            self.take(size)?;
        }
        Ok(&self.pyc[start..self.at])
    }

    fn sized(&mut self) -> Result<&'p [u8], MarshalError> {
        let size = self.size()?;
        self.take(size)
    }

    fn size(&mut self) -> Result<usize, MarshalError> {
        let at = self.at;
        let size = i32::from_le_bytes(self.array()?);
        usize::try_from(size).map_err(|_| MarshalError::Malformed { at, what: "its size is negative" })
    }

    fn byte(&mut self) -> Result<u8, MarshalError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MarshalError> {
        let rest = &self.pyc[self.at..];
        let (array, _) = rest.split_first_chunk().ok_or(MarshalError::Truncated { at: self.at })?;
        self.at += N;
        Ok(*array)
    }

    fn take(&mut self, size: usize) -> Result<&'p [u8], MarshalError> {
        let rest = &self.pyc[self.at..];
        let (taken, _) = rest.split_at_checked(size).ok_or(MarshalError::Truncated { at: self.at })?;
        self.at += size;
        Ok(taken)
    }
}

impl Container<'_> {
    /// The number of parts that it has when there are `read` parts in all.
    fn number_of_parts(&self, read: usize) -> usize {
        read - self.first
    }
}

/// The type of which there is one object, if that is what the type code says. It is never numbered.
fn singleton(code: u8) -> Option<Kind> {
    match code {
        b'N' => Some(Kind::None),
        b'F' => Some(Kind::False),
        b'T' => Some(Kind::True),
        b'.' => Some(Kind::Ellipsis),
        b'S' => Some(Kind::StopIteration),
        _ => None,
    }
}

/// Whether it is UTF-8, in which surrogates may stand alone, as in Python's strings.
fn is_wtf8(mut bytes: &[u8]) -> bool {
    while let Err(error) = std::str::from_utf8(bytes) {
        let [0xED, 0xA0..=0xBF, 0x80..=0xBF, rest @ ..] = &bytes[error.valid_up_to()..] else { return false };
        bytes = rest;
    }
    true
}
