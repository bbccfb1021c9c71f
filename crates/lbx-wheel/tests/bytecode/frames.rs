//! The frames of the compiler program: what is read, and what is refused before anything large is allocated.

use lbx_wheel::bytecode::{Compiled, Frame, FrameError, Frames, Limits};
use proptest::prelude::*;

const MAGIC: &[u8] = b"lbxpyc01";
const END: &[u8] = b".\0\0\0\0\0\0\0\0";

fn frame(kind: u8, path: &[u8], body: &[u8]) -> Vec<u8> {
    let sizes = [path.len(), body.len()].map(|size| u32::try_from(size).unwrap().to_le_bytes());
    [&[kind][..], &sizes.concat(), path, body].concat()
}

fn read(bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    Frames::new(bytes, Limits::default()).collect()
}

macro_rules! assert_refused {
    ($bytes:expr, $pattern:pat) => {
        match read(&$bytes) {
            Err($pattern) => {}
            other => panic!("expected {}, found {other:?}", stringify!($pattern)),
        }
    };
}

#[test]
fn frames_come_in_order() {
    let bytes =
        [MAGIC, &frame(b'P', b"a/b.pyc", b"code"), &frame(b'E', "ä.pyc".as_bytes(), b"why"), END].concat();
    let expected = vec![
        Frame { cache: "a/b.pyc".into(), compiled: Compiled::Pyc(b"code".to_vec()) },
        Frame { cache: "ä.pyc".into(), compiled: Compiled::Error("why".into()) },
    ];
    assert_eq!(read(&bytes).unwrap(), expected);
    assert_eq!(read(&[MAGIC, END].concat()).unwrap(), []);
}

#[test]
fn what_is_cut_off_is_refused_at_every_byte() {
    let bytes = [MAGIC, &frame(b'P', b"a.pyc", b"code"), &frame(b'E', b"b.pyc", b"why"), END].concat();
    for size in 0..bytes.len() {
        assert_refused!(bytes[..size], FrameError::Truncated);
    }
    assert_refused!([&bytes[..], b"."].concat(), FrameError::Trailing);
}

#[test]
fn what_is_something_else_is_refused() {
    assert_refused!([b"lbxpyc02", END].concat(), FrameError::Magic);
    assert_refused!([MAGIC, &frame(b'X', b"a.pyc", b""), END].concat(), FrameError::Kind { kind: b'X' });
    // An end is empty.
    assert_refused!([MAGIC, &frame(b'.', b"", b"x")].concat(), FrameError::Kind { kind: b'.' });
}

#[test]
fn what_is_no_line_of_text_is_refused() {
    for text in [&b"\xff"[..], b"a\nb", b"a\x1b[31m"] {
        assert_refused!([MAGIC, &frame(b'P', text, b""), END].concat(), FrameError::Text { what: "path" });
        let reason = [MAGIC, &frame(b'E', b"a.pyc", text), END].concat();
        assert_refused!(reason, FrameError::Text { what: "reason" });
    }
}

#[test]
fn sizes_over_their_limits_are_refused() {
    let limits = Limits { path: 5, pyc: 4, reason: 3 };
    let read = |kind, path: &[u8], body: &[u8]| {
        let bytes = [MAGIC, &frame(kind, path, body), END].concat();
        Frames::new(&bytes[..], limits).collect::<Result<Vec<_>, _>>()
    };
    read(b'P', b"a.pyc", b"code").unwrap();
    read(b'E', b"a.pyc", b"why").unwrap();
    let refused = |result| match result {
        Err(FrameError::TooLarge { what, size, limit }) => (what, size, limit),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(read(b'P', b"ab.pyc", b"code")), ("path", 6, 5));
    assert_eq!(refused(read(b'P', b"a.pyc", b"codes")), ("pyc", 5, 4));
    assert_eq!(refused(read(b'E', b"a.pyc", b"whys")), ("reason", 4, 3));
}

/// A size is no reason to read or to allocate: of four gigabytes that are said to come, none is there.
#[test]
fn a_size_that_is_not_there_is_refused() {
    let limits = Limits { pyc: u32::MAX, ..Limits::default() };
    let bytes = [MAGIC, b"P\x01\0\0\0\xff\xff\xff\xffa", b"few"].concat();
    let found: Result<Vec<_>, _> = Frames::new(&bytes[..], limits).collect();
    assert!(matches!(found, Err(FrameError::Truncated)), "{found:?}");
}

#[test]
fn nothing_is_read_after_an_error() {
    let bytes = [MAGIC, &frame(b'X', b"", b""), &frame(b'P', b"a.pyc", b""), END].concat();
    let mut frames = Frames::new(&bytes[..], Limits::default());
    assert!(frames.next().unwrap().is_err());
    assert!(frames.next().is_none());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(read(&[MAGIC, &bytes].concat()));
        drop(read(&bytes));
    }
}
