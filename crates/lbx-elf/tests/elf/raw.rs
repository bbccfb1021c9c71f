//! Files that no linker makes: one segment with all of the file, at address 0, and a dynamic section.

/// Where the body of a file starts, and so its address.
pub(crate) const BODY: u64 = 0x1000;

/// A 64-bit shared library with these dynamic entries and this body.
pub(crate) fn library(dynamic: &[(u64, u64)], body: &[u8]) -> Vec<u8> {
    let mut file = vec![0; usize::try_from(BODY).unwrap()];
    let dynamic_at = 0x400;
    file[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    put(&mut file, 16, &[3, 0, 62, 0, 1, 0, 0, 0]);
    put_word(&mut file, 32, 64);
    put(&mut file, 52, &[64, 0, 56, 0, 2, 0, 64, 0]);
    let size = BODY + u64::try_from(body.len()).unwrap();
    put_segment(&mut file, 64, 1, 0, size);
    put_segment(&mut file, 64 + 56, 2, dynamic_at, 16 * u64::try_from(dynamic.len() + 1).unwrap());
    for (at, (tag, value)) in dynamic.iter().enumerate() {
        let at = usize::try_from(dynamic_at).unwrap() + 16 * at;
        put_word(&mut file, at, *tag);
        put_word(&mut file, at + 8, *value);
    }
    file.extend_from_slice(body);
    file
}

fn put_segment(file: &mut [u8], at: usize, kind: u8, offset: u64, size: u64) {
    file[at] = kind;
    for (field, value) in [(8, offset), (16, offset), (24, offset), (32, size), (40, size)] {
        put_word(file, at + field, value);
    }
}

/// Writes bytes into a file.
pub(crate) fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Writes a 64-bit number into a file.
pub(crate) fn put_word(file: &mut [u8], at: usize, value: u64) {
    put(file, at, &value.to_le_bytes());
}

/// A number of some bytes in a file.
pub(crate) fn get(file: &[u8], at: usize, width: usize) -> usize {
    let mut bytes = [0; 8];
    bytes[..width].copy_from_slice(&file[at..at + width]);
    usize::try_from(u64::from_le_bytes(bytes)).unwrap()
}

/// The header of a section in a 64-bit file, by name: its number, and where it is.
pub(crate) fn section(file: &[u8], name: &str) -> (usize, usize) {
    let (table, count, names) = (get(file, 40, 8), get(file, 60, 2), get(file, 62, 2));
    let strings = get(file, table + 64 * names + 24, 8);
    let is_it = |number: &usize| {
        let at = strings + get(file, table + 64 * number, 4);
        file[at..].starts_with(name.as_bytes()) && file[at + name.len()] == 0
    };
    let number = (0..count).find(is_it).unwrap_or_else(|| panic!("no section {name}"));
    (number, table + 64 * number)
}
