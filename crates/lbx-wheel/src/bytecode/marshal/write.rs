//! Writing objects as a marshal stream, in CPython's own encodings.

use super::objects::{FIELDS_BEFORE_LINE, Graph, Kind, Object};
use super::read::FLAG;
use super::{MAX_DEPTH, MarshalError};

/// Writes the last object after a header.
///
/// An object that is in several places is written at the first one, with a number, and referred to at the others.
pub(super) fn write(graph: &Graph<'_>, header: &[u8]) -> Result<Vec<u8>, MarshalError> {
    let mut writer = Writer {
        graph,
        shared: shared(graph),
        numbers: vec![None; graph.len()],
        next: 0,
        out: header.to_vec(),
        open: Vec::new(),
    };
    writer.run()?;
    Ok(writer.out)
}

/// For each object, whether it is in more than one place.
fn shared(graph: &Graph<'_>) -> Vec<bool> {
    let (mut once, mut more) = (vec![false; graph.len()], vec![false; graph.len()]);
    for &part in graph.iter().flat_map(|object| &object.parts) {
        more[part as usize] = once[part as usize];
        once[part as usize] = true;
    }
    more
}

struct Writer<'g, 'p> {
    graph: &'g Graph<'p>,
    shared: Vec<bool>,
    /// What an object is referred to by, once it is written.
    numbers: Vec<Option<u32>>,
    next: u32,
    out: Vec<u8>,
    /// The containers that are being written, with the number of their parts that are.
    open: Vec<(u32, usize)>,
}

impl Writer<'_, '_> {
    fn run(&mut self) -> Result<(), MarshalError> {
        let root = u32::try_from(self.graph.len() - 1).expect("objects are counted in 32 bits");
        self.object(root)?;
        while let Some((id, written)) = self.open.last_mut() {
            let object = self.graph.get(*id);
            if object.kind == Kind::Code && *written == FIELDS_BEFORE_LINE {
                self.out.extend(object.line);
            }
            if let Some(&part) = object.parts.get(*written) {
                *written += 1;
                self.object(part)?;
            } else {
                if object.kind == Kind::Dict {
                    self.out.push(b'0');
                }
                self.open.pop();
            }
        }
        Ok(())
    }

    /// Writes an object without its parts, or a reference to it.
    fn object(&mut self, id: u32) -> Result<(), MarshalError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(MarshalError::Depth);
        }
        if let Some(number) = self.numbers[id as usize] {
            self.out.push(b'r');
            self.out.extend(number.to_le_bytes());
            return Ok(());
        }
        let object = self.graph.get(id);
        let start = self.out.len();
        self.head(object, self.graph.is_interned(id));
        if self.shared[id as usize] && !object.kind.is_singleton() {
            self.out[start] |= FLAG;
            self.numbers[id as usize] = Some(self.next);
            self.next += 1;
        }
        if object.kind.is_container() {
            self.open.push((id, 0));
        }
        Ok(())
    }

    fn head(&mut self, object: &Object<'_>, interned: bool) {
        match object.kind {
            Kind::None => self.out.push(b'N'),
            Kind::False => self.out.push(b'F'),
            Kind::True => self.out.push(b'T'),
            Kind::Ellipsis => self.out.push(b'.'),
            Kind::StopIteration => self.out.push(b'S'),
            Kind::Int => self.plain(b'i', object.bytes),
            Kind::Long => self.plain(b'l', object.bytes),
            Kind::Float => self.plain(b'g', object.bytes),
            Kind::TextFloat => self.plain(b'f', object.bytes),
            Kind::Complex => self.plain(b'y', object.bytes),
            Kind::TextComplex => self.plain(b'x', object.bytes),
            Kind::Code => self.plain(b'c', object.bytes),
            Kind::Bytes => self.sized(b's', object.bytes),
            Kind::Ascii => self.ascii(object.bytes, interned),
            Kind::Unicode => self.sized(if interned { b't' } else { b'u' }, object.bytes),
            Kind::Tuple => match u8::try_from(object.parts.len()) {
                Ok(count) => self.out.extend([b')', count]),
                Err(_) => self.counted(b'(', object.parts.len()),
            },
            Kind::List => self.counted(b'[', object.parts.len()),
            Kind::Set => self.counted(b'<', object.parts.len()),
            Kind::FrozenSet => self.counted(b'>', object.parts.len()),
            Kind::Dict => self.out.push(b'{'),
            Kind::Slice => self.out.push(b':'),
        }
    }

    fn ascii(&mut self, bytes: &[u8], interned: bool) {
        if let Ok(size) = u8::try_from(bytes.len()) {
            self.out.extend([if interned { b'Z' } else { b'z' }, size]);
            self.out.extend(bytes);
        } else {
            self.sized(if interned { b'A' } else { b'a' }, bytes);
        }
    }

    fn plain(&mut self, code: u8, bytes: &[u8]) {
        self.out.push(code);
        self.out.extend(bytes);
    }

    fn sized(&mut self, code: u8, bytes: &[u8]) {
        self.counted(code, bytes.len());
        self.out.extend(bytes);
    }

    fn counted(&mut self, code: u8, count: usize) {
        let count = u32::try_from(count).expect("it was read from 31 bits");
        self.out.push(code);
        self.out.extend(count.to_le_bytes());
    }
}
