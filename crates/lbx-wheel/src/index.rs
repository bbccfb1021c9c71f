//! The stored form of what `import` finds: bytes that load fast, and that are refused unless all of them are as they
//! were written. When to trust one is `store`'s.
//!
//! A header line, a SHA-256 of the rest, and the rest: integers as LEB128, strings and lists after their length. The
//! layout may change whenever [`HEADER`] does; an index in another form counts as absent.

use lbx_archive::{COMPRESSOR, Method, Packed};
use sha2::{Digest as _, Sha256};

use crate::Digest;
use crate::import::Contents;
use crate::layout::{Kind, LeftOut, LeftOutReason};
use crate::metadata::{EntryPoint, Metadata};
use crate::wheel::{InstalledFile, Location};

/// The form, counted up whenever it or the meaning of its content changes.
const HEADER: &[u8] = b"lbx wheel index 2\n";

/// What must still be true of the files beside an index for it to speak of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Bytes.
    pub(crate) size: u64,
    /// Time of last modification, in nanoseconds since 1970.
    pub(crate) modified: u64,
}

/// An index: the wheel's file name, the stamps of the wheel and the sidecar, the sidecar's SHA-256, and the contents.
/// The wheel's SHA-256 is the name of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) filename: String,
    pub(crate) wheel: Stamp,
    pub(crate) sidecar: Option<(Stamp, Digest)>,
    pub(crate) contents: Contents,
}

impl Index {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Sink::default();
        body.text(COMPRESSOR);
        body.text(&self.filename);
        body.stamp(self.wheel);
        body.option(self.sidecar, |sink, (stamp, digest)| {
            sink.stamp(stamp);
            sink.bytes.extend_from_slice(&digest.0);
        });
        body.contents(&self.contents);
        let mut bytes = HEADER.to_vec();
        bytes.extend_from_slice(&Sha256::digest(&body.bytes));
        bytes.extend_from_slice(&body.bytes);
        bytes
    }

    /// `None` for anything but what [`Index::to_bytes`] gave with this form and this compressor.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (checksum, body) = bytes.strip_prefix(HEADER)?.split_at_checked(32)?;
        if Sha256::digest(body)[..] != *checksum {
            return None;
        }
        let mut body = Bytes { rest: body };
        if body.text()? != COMPRESSOR {
            return None;
        }
        let index = Self {
            filename: body.text()?,
            wheel: body.stamp()?,
            sidecar: body.option(|bytes| Some((bytes.stamp()?, Digest(bytes.take(32)?.try_into().ok()?))))?,
            contents: body.contents()?,
        };
        body.rest.is_empty().then_some(index)
    }
}

#[derive(Default)]
pub(crate) struct Sink {
    pub(crate) bytes: Vec<u8>,
}

impl Sink {
    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(crate) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.byte(value.to_le_bytes()[0]);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut put: impl FnMut(&mut Self, &T)) {
        self.number(items.len() as u64);
        for item in items {
            put(self, item);
        }
    }

    fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            put(self, value);
        }
    }

    fn texts(&mut self, texts: &[String]) {
        self.list(texts, |sink, text| sink.text(text));
    }

    fn entry_points(&mut self, points: &[EntryPoint]) {
        self.list(points, |sink, point| {
            sink.text(&point.name);
            sink.text(&point.target);
        });
    }

    pub(crate) fn stamp(&mut self, stamp: Stamp) {
        self.number(stamp.size);
        self.number(stamp.modified);
    }

    fn contents(&mut self, contents: &Contents) {
        let Contents { metadata, .. } = contents;
        self.text(&metadata.name);
        self.text(&metadata.version);
        self.texts(&metadata.requires_dist);
        self.option(metadata.requires_python.as_deref(), Self::text);
        self.texts(&metadata.provides_extra);
        self.byte(u8::from(contents.root_is_purelib));
        self.text(&contents.dist_info);
        self.entry_points(&contents.console_scripts);
        self.entry_points(&contents.gui_scripts);
        self.list(&contents.files, Self::file);
        self.list(&contents.left_out, |sink, left_out| {
            sink.text(&left_out.member);
            sink.byte(match left_out.reason {
                LeftOutReason::EntryPointScript => 0,
                LeftOutReason::TargetLib => 1,
                LeftOutReason::Shadowed => 2,
            });
        });
        self.number(contents.sidecar_size);
    }

    pub(crate) fn packed(&mut self, packed: Packed) {
        self.number(u64::from(packed.method.id()));
        self.number(u64::from(packed.crc32));
        self.number(packed.compressed_size);
        self.number(packed.size);
    }

    fn file(&mut self, file: &InstalledFile) {
        self.text(&file.path);
        // Nearly always the same as the path; no member has an empty name.
        self.text(if file.member == file.path { "" } else { &file.member });
        self.byte(match file.kind {
            Kind::Module => 0,
            Kind::Metadata => 1,
            Kind::Data => 2,
            Kind::Header => 3,
            Kind::Script { shebang: false } => 4,
            Kind::Script { shebang: true } => 5,
        });
        self.byte(u8::from(file.executable));
        self.packed(file.packed);
        let (place, offset) = match file.location {
            Location::Wheel { offset } => (0, offset),
            Location::Sidecar { offset } => (1, offset),
        };
        self.byte(place);
        self.number(offset);
        self.bytes.extend_from_slice(&file.sha256);
    }
}

pub(crate) struct Bytes<'b> {
    pub(crate) rest: &'b [u8],
}

impl<'b> Bytes<'b> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.number()?).ok()?;
        str::from_utf8(self.take(len)?).ok().map(str::to_owned)
    }

    pub(crate) fn list<T>(&mut self, mut get: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.number()?).ok()?;
        // Every item takes a byte at least.
        let mut items = Vec::with_capacity(count.min(self.rest.len()));
        for _ in 0..count {
            items.push(get(self)?);
        }
        Some(items)
    }

    #[expect(clippy::option_option, reason = "the outer one is for bytes that are no option")]
    fn option<T>(&mut self, get: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { get(self).map(Some) } else { Some(None) }
    }

    fn entry_points(&mut self) -> Option<Vec<EntryPoint>> {
        self.list(|bytes| Some(EntryPoint { name: bytes.text()?, target: bytes.text()? }))
    }

    pub(crate) fn stamp(&mut self) -> Option<Stamp> {
        Some(Stamp { size: self.number()?, modified: self.number()? })
    }

    fn contents(&mut self) -> Option<Contents> {
        let metadata = Metadata {
            name: self.text()?,
            version: self.text()?,
            requires_dist: self.list(Self::text)?,
            requires_python: self.option(Self::text)?,
            provides_extra: self.list(Self::text)?,
        };
        Some(Contents {
            metadata,
            root_is_purelib: self.flag()?,
            dist_info: self.text()?,
            console_scripts: self.entry_points()?,
            gui_scripts: self.entry_points()?,
            files: self.list(Self::file)?,
            left_out: self.list(Self::left_out)?,
            sidecar_size: self.number()?,
        })
    }

    fn left_out(&mut self) -> Option<LeftOut> {
        let member = self.text()?;
        let reason = match self.byte()? {
            0 => LeftOutReason::EntryPointScript,
            1 => LeftOutReason::TargetLib,
            2 => LeftOutReason::Shadowed,
            _ => return None,
        };
        Some(LeftOut { member, reason })
    }

    pub(crate) fn packed(&mut self) -> Option<Packed> {
        Some(Packed {
            method: Method::from_id(u16::try_from(self.number()?).ok()?)?,
            crc32: u32::try_from(self.number()?).ok()?,
            compressed_size: self.number()?,
            size: self.number()?,
        })
    }

    fn file(&mut self) -> Option<InstalledFile> {
        let path = self.text()?;
        let member = Some(self.text()?).filter(|member| !member.is_empty()).unwrap_or_else(|| path.clone());
        let kind = match self.byte()? {
            0 => Kind::Module,
            1 => Kind::Metadata,
            2 => Kind::Data,
            3 => Kind::Header,
            4 => Kind::Script { shebang: false },
            5 => Kind::Script { shebang: true },
            _ => return None,
        };
        let executable = self.flag()?;
        let packed = self.packed()?;
        let in_sidecar = self.flag()?;
        let offset = self.number()?;
        let location = if in_sidecar { Location::Sidecar { offset } } else { Location::Wheel { offset } };
        let sha256 = self.take(32)?.try_into().ok()?;
        Some(InstalledFile { path, member, kind, executable, packed, location, sha256 })
    }
}
