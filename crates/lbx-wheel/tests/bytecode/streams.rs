//! Hand-made streams: what is rewritten, what is kept apart, and what is refused.

use lbx_wheel::bytecode::{MarshalError, PythonVersion, normalize};

/// The version whose layout the hand-made code objects have.
pub(crate) const VERSION: PythonVersion = PythonVersion(3, 11);

/// The header of an unchecked-hash pyc.
pub(crate) const HEADER: [u8; 16] = *b"\xa7\x0d\r\n\x01\0\0\0SOURCEHA";

/// What comes before the constants of a code object: its numbers and its bytecode.
const BEFORE: &[u8] = b"c\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0s\x02\0\0\0\x97\0";

/// What comes after them, without anything that is there twice: names, variables, kinds, file, name, qualified name,
/// first line, lines, exception table.
const AFTER: &[u8] = b")\x01Z\x01n)\x01Z\x01vs\x01\0\0\0\x20z\x04file\
    Z\x08<module>Z\x04qual\x01\0\0\0s\x02\0\0\0lis\x02\0\0\0ex";

/// A code object with these constants.
pub(crate) fn code(constants: &[u8]) -> Vec<u8> {
    [BEFORE, constants, AFTER].concat()
}

pub(crate) fn pyc(stream: &[u8]) -> Vec<u8> {
    [&HEADER, stream].concat()
}

/// What becomes of a tuple of constants. What is rewritten once is not changed again.
fn rewritten(constants: &[u8]) -> Result<Vec<u8>, MarshalError> {
    let result = normalize(&pyc(&code(constants)), VERSION)?;
    assert_eq!(normalize(&result, VERSION).as_ref(), Ok(&result));
    let end = result.len() - AFTER.len();
    assert_eq!(result[..16 + BEFORE.len()], pyc(BEFORE));
    Ok(result[16 + BEFORE.len()..end].to_vec())
}

#[track_caller]
fn assert_rewritten(constants: &[u8], expected: &[u8]) {
    let found = rewritten(constants).unwrap();
    assert_eq!(found, expected, "{} and {}", found.escape_ascii(), expected.escape_ascii());
}

#[track_caller]
fn assert_kept(constants: &[u8]) {
    assert_rewritten(constants, constants);
}

#[test]
fn a_mark_that_nothing_refers_to_is_dropped() {
    assert_rewritten(b"\xa9\x01\xe9\x07\0\0\0", b")\x01i\x07\0\0\0");
    assert_kept(b")\x01i\x07\0\0\0");
}

#[test]
fn references_are_numbered_in_order_of_appearance() {
    let constants = b")\x04\xe9\x07\0\0\0\xe9\x08\0\0\0\xe9\x09\0\0\0r\x02\0\0\0";
    assert_rewritten(constants, b")\x04i\x07\0\0\0i\x08\0\0\0\xe9\x09\0\0\0r\0\0\0\0");
}

#[test]
fn equal_constants_become_one_object() {
    assert_rewritten(b")\x02i\x07\0\0\0i\x07\0\0\0", b")\x02\xe9\x07\0\0\0r\0\0\0\0");
    assert_rewritten(b")\x02z\x02a z\x02a ", b")\x02\xfa\x02a r\0\0\0\0");
    assert_rewritten(b")\x02)\x01Ni\x07\0\0\0", b")\x02)\x01Ni\x07\0\0\0");
    assert_rewritten(b")\x02)\x01i\x07\0\0\0)\x01i\x07\0\0\0", b")\x02\xa9\x01i\x07\0\0\0r\0\0\0\0");
    let nested = code(b")\x01N");
    let marked = [b"\xe3", &nested[1..]].concat();
    let twice = normalize(&pyc(&code(&[b")\x02", &nested[..], &nested].concat())), VERSION);
    let referred = normalize(&pyc(&code(&[b")\x02", &marked[..], b"r\0\0\0\0"].concat())), VERSION);
    assert_eq!(twice.unwrap(), referred.unwrap());
}

#[test]
fn equal_numbers_of_other_types_or_signs_stay_apart() {
    let one = b"g\0\0\0\0\0\0\xf0\x3f";
    let zeros = [&b"g\0\0\0\0\0\0\0\0"[..], b"g\0\0\0\0\0\0\0\x80"].concat();
    assert_kept(&[b")\x05i\x01\0\0\0T", &one[..], &zeros].concat());
    assert_kept(b")\x02s\x02\0\0\0abz\x02ab");
    assert_kept(b")\x02u\x04\0\0\0\xc3\xa9\xc3\xa9s\x04\0\0\0\xc3\xa9\xc3\xa9");
}

#[test]
fn singletons_are_written_each_time() {
    assert_kept(b")\x0aNNFFTT..SS");
}

#[test]
fn nan_is_as_many_objects_as_it_was() {
    let nan = b"g\0\0\0\0\0\0\xf8\x7f";
    let marked = b"\xe7\0\0\0\0\0\0\xf8\x7f";
    assert_kept(&[b")\x02", &nan[..], nan].concat());
    assert_kept(&[b")\x02", &marked[..], b"r\0\0\0\0"].concat());
    // A tuple that has it is another one, too.
    assert_kept(&[b")\x02)\x01", &nan[..], b")\x01", nan].concat());
}

#[test]
fn what_can_be_changed_is_as_many_objects_as_it_was() {
    assert_kept(b")\x02[\0\0\0\0[\0\0\0\0");
    assert_kept(b")\x02\xdb\0\0\0\0r\0\0\0\0");
    assert_kept(b")\x02{i\x07\0\0\0N0{i\x08\0\0\0[\0\0\0\x000");
    assert_kept(b")\x02<\x01\0\0\0N<\x01\0\0\0T");
}

/// An interpreter has them once, and whether they are interned is what others made of them.
#[test]
fn single_characters_are_interned() {
    assert_rewritten(b")\x03z\0z\x01 u\x02\0\0\0\xc3\xa9", b")\x03Z\0Z\x01 t\x02\0\0\0\xc3\xa9");
    assert_kept(b")\x03z\x02  u\x03\0\0\0\xe2\x82\xacu\x04\0\0\0\xc3\xa9\xc3\xa9");
}

#[test]
fn what_is_interned_somewhere_is_interned() {
    assert_rewritten(b")\x02z\x02abZ\x02ab", b")\x02\xda\x02abr\0\0\0\0");
}

#[test]
fn sets_have_one_order() {
    let (one, two, three) = (&b"i\x01\0\0\0"[..], &b"z\x02ab"[..], &b")\x01i\x07\0\0\0"[..]);
    let orders = [[one, two, three], [three, two, one], [two, one, three]]
        .map(|parts| rewritten(&[b")\x01>\x03\0\0\0", &parts.concat()[..]].concat()).unwrap());
    assert!(orders.iter().all(|order| *order == orders[0]), "{orders:?}");
    // And so one set in two orders is one object.
    let both = [&b")\x02>\x02\0\0\0"[..], one, two, b">\x02\0\0\0", two, one].concat();
    assert!(rewritten(&both).unwrap().ends_with(b"r\0\0\0\0"));
}

#[test]
fn a_tuple_keeps_its_order() {
    assert_kept(b")\x02i\x02\0\0\0i\x01\0\0\0");
    assert_kept(b")\x02i\x01\0\0\0i\x02\0\0\0");
}

#[test]
fn encodings_are_the_shortest() {
    assert_rewritten(b"(\x02\0\0\0a\x02\0\0\0abA\x02\0\0\0cd", b")\x02z\x02abZ\x02cd");
    let (text, parts) = ("x".repeat(256), "N".repeat(256));
    assert_kept(&[b")\x02a\0\x01\0\0", text.as_bytes(), b"(\0\x01\0\0", parts.as_bytes()].concat());
}

#[test]
fn slices_are_constants_of_3_14() {
    let slice = pyc(&code(b")\x01:NTN"));
    assert_eq!(normalize(&slice, PythonVersion(3, 14)), Ok(slice.clone()));
    let at = 16 + BEFORE.len() + 2;
    assert_eq!(normalize(&slice, PythonVersion(3, 13)), Err(MarshalError::Type { code: b':', at }));
}

#[test]
fn versions_without_a_layout_are_refused() {
    for (major, minor) in [(2, 7), (3, 7), (3, 15), (4, 8)] {
        let found = normalize(&pyc(&code(b")\0")), PythonVersion(major, minor));
        assert_eq!(found, Err(MarshalError::Version { major, minor }));
    }
}

#[test]
fn another_header_is_refused() {
    let good = pyc(&code(b")\0"));
    normalize(&good, VERSION).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        normalize(&bytes, VERSION)
    };
    // By time, by hash and checked, and with a bit that has no meaning.
    for flags in [0b00, 0b11, 0b101] {
        assert!(matches!(with(4, flags), Err(MarshalError::Header { .. })));
    }
    assert!(matches!(with(3, b'\r'), Err(MarshalError::Header { .. })));
    for size in 0..16 {
        assert!(matches!(normalize(&good[..size], VERSION), Err(MarshalError::Header { .. })));
    }
}

#[test]
fn what_is_cut_off_is_refused_at_every_byte() {
    let nested = code(b")\x02>\x01\0\0\0i\x07\0\0\0z\x02ab");
    let good = pyc(&code(&[b")\x02", &nested[..], b"{i\x08\0\0\0l\x03\0\0\0\x01\0\x01\0\x01\x000"].concat()));
    normalize(&good, VERSION).unwrap();
    for size in 16..good.len() {
        let found = normalize(&good[..size], VERSION);
        assert!(matches!(found, Err(MarshalError::Truncated { .. })), "{size}: {found:?}");
    }
    let longer = [&good[..], b"N"].concat();
    assert_eq!(normalize(&longer, VERSION), Err(MarshalError::Trailing { at: good.len() }));
}

#[test]
fn sizes_that_are_not_there_are_refused() {
    for kind in [b'(', b'[', b'<', b'>', b's', b'a', b'A', b'u', b't', b'l'] {
        let constants = [b")\x01", &[kind][..], b"\xff\xff\xff\x7f"].concat();
        assert!(matches!(rewritten(&constants), Err(MarshalError::Truncated { .. })), "{kind}");
    }
    for kind in [b'(', b'[', b'<', b'>', b's', b'a', b'A', b'u', b't'] {
        let constants = [b")\x01", &[kind][..], b"\xff\xff\xff\xff"].concat();
        assert!(matches!(rewritten(&constants), Err(MarshalError::Malformed { .. })), "{kind}");
    }
}

#[test]
fn references_to_nothing_or_to_what_is_not_complete_are_refused() {
    // None at all, one that is not marked, one behind the last, and a tuple, list and frozenset in themselves.
    for constants in [
        &b")\x01r\0\0\0\0"[..],
        b")\x02i\x07\0\0\0r\0\0\0\0",
        b")\x02\xe9\x07\0\0\0r\x01\0\0\0",
        b")\x02\xe9\x07\0\0\0r\xff\xff\xff\xff",
        b"\xa9\x01r\0\0\0\0",
        b")\x01\xdb\x01\0\0\0r\0\0\0\0",
        b")\x01\xbe\x01\0\0\0r\0\0\0\0",
    ] {
        let found = rewritten(constants);
        assert!(matches!(found, Err(MarshalError::Reference { .. })), "{found:?}");
    }
}

#[test]
fn type_codes_that_are_not_written_are_refused() {
    // Not known, an old one, and those that have neither a number nor a mark.
    for code in [b'?', b'I', 0, 0xFF, b'N' | 0x80, b'T' | 0x80, b'r' | 0x80, b'0' | 0x80] {
        let found = rewritten(&[b")\x01", &[code][..], b"\0\0\0\0\0\0\0\0"].concat());
        assert!(matches!(found, Err(MarshalError::Type { code: named, .. }) if named == code), "{found:?}");
    }
}

#[test]
fn malformed_objects_are_refused() {
    for constants in [
        // ASCII and UTF-8 that are none.
        &b")\x01z\x01\xe9"[..],
        b")\x01u\x01\0\0\0\xe9",
        b")\x01u\x03\0\0\0\xed\xa0\x20",
        // A digit of sixteen bits, and a zero at the front.
        b")\x01l\x01\0\0\0\0\x80",
        b")\x01l\x02\0\0\0\x01\0\0\0",
        // No object in a tuple and in the place of a dictionary's value.
        b")\x010",
        b")\x01{N0",
    ] {
        let found = rewritten(constants);
        assert!(matches!(found, Err(MarshalError::Malformed { .. })), "{found:?}");
    }
    assert_kept(b")\x01u\x09\0\0\0a\xed\xa0\x80b\xed\xbf\xbfc");
    assert_kept(b")\x02l\0\0\0\0l\xfd\xff\xff\xff\x01\0\x01\0\x01\0");
}

#[test]
fn what_is_not_a_code_object_is_refused() {
    for stream in [&b"N"[..], b"0", b"i\x07\0\0\0", b")\0", b")\x01N"] {
        let found = normalize(&pyc(stream), VERSION);
        assert!(matches!(found, Err(MarshalError::Malformed { .. })), "{found:?}");
    }
}

/// CPython takes some of a code object's fields for what they should be, without a look.
#[test]
fn fields_of_another_type_are_refused() {
    let good = code(b")\0");
    let fields: [(&[u8], &[u8]); 9] = [
        (b"s\x02\0\0\0\x97\0", b"N"),
        (b")\0)", b"[\0\0\0\0)"),
        (b")\x01Z\x01n", b")\x01N"),
        (b")\x01Z\x01v", b"z\x01v"),
        (b"s\x01\0\0\0\x20", b"z\x01\x20"),
        (b"z\x04file", b"s\x04\0\0\0file"),
        (b"Z\x08<module>", b"N"),
        (b"s\x02\0\0\0li", b")\0"),
        (b"s\x02\0\0\0ex", b"N"),
    ];
    for (field, other) in fields {
        let at = good.windows(field.len()).position(|window| window == field).unwrap();
        let bad = [&good[..at], other, &good[at + field.len()..]].concat();
        let found = normalize(&pyc(&bad), VERSION);
        let what = "a field of the code object has another type";
        assert_eq!(found, Err(MarshalError::Malformed { at: 16, what }), "{}", field.escape_ascii());
    }
}

#[test]
fn nesting_is_limited_as_it_is_in_cpython() {
    let nested = |depth: usize| [&b")\x01".repeat(depth)[..], b"N"].concat();
    // The code object is outside, and None is inside.
    assert_kept(&nested(1998));
    assert_eq!(rewritten(&nested(1999)), Err(MarshalError::Depth));
    assert_eq!(rewritten(&nested(1_000_000)), Err(MarshalError::Depth));
}

/// Sorting a set can move what is deep into what is deep.
#[test]
fn what_becomes_too_deep_is_refused() {
    let mut deeper = 0;
    for salt in 0..16_u8 {
        let shared = [&b"\xa9\x01".to_vec()[..], &b")\x01".repeat(1200), b"i", &[salt, 0, 0, 0]].concat();
        let outer = [&b")\x01".repeat(900)[..], b"r\0\0\0\0"].concat();
        match rewritten(&[b")\x01>\x02\0\0\0", &shared[..], &outer].concat()) {
            Ok(_) => {}
            Err(MarshalError::Depth) => deeper += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((1..16).contains(&deeper), "{deeper} of 16");
}
