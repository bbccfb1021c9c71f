//! Archives that need zip64: more members, or more bytes, than the old fields count.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;

use lbx_archive::{Archive, Entry, Limits, Method, Packed, Source, Timestamp, write};

use crate::support::{assert_accepted_by, file_of};

fn empty(name: String) -> Entry {
    let packed = Packed { method: Method::Stored, crc32: 0, compressed_size: 0, size: 0 };
    Entry { name, executable: false, packed, source: Source::Memory(Arc::new([])) }
}

fn write_file(entries: &[Entry]) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".zip").tempfile().unwrap();
    write(file.as_file_mut(), entries, Timestamp::default()).unwrap();
    file
}

fn has_zip64_end(file: &File) -> bool {
    use std::os::unix::fs::FileExt;
    let mut locator = [0; 4];
    file.read_exact_at(&mut locator, file.metadata().unwrap().len() - 42).unwrap();
    locator == *b"PK\x06\x07"
}

#[test]
fn many_members_need_zip64_and_fewer_do_not() {
    for (count, wide) in [(65_534, false), (65_535, true), (70_000, true)] {
        let entries: Vec<Entry> = (0..count).map(|at| empty(format!("{at:05}"))).collect();
        let file = write_file(&entries);
        assert_eq!(has_zip64_end(file.as_file()), wide, "{count}");
        let archive = Archive::open(file.as_file(), &Limits::default()).unwrap();
        assert_eq!(archive.members().len(), count);
        assert_eq!(zip::ZipArchive::new(file.reopen().unwrap()).unwrap().len(), count);
        let python =
            format!("import sys, zipfile; sys.exit(len(zipfile.ZipFile(sys.argv[1]).namelist()) != {count})");
        assert_accepted_by(&["python3", "-c", &python], file.path());
        assert_accepted_by(&["unzip", "-Zh"], file.path());
    }
}

/// Keeps what is written, but leaves holes for zeros, so that gigabytes take no disk.
struct Sparse {
    file: File,
    zeros: Vec<u8>,
}

impl Write for Sparse {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let len = bytes.len().min(self.zeros.len());
        let bytes = &bytes[..len];
        if bytes == &self.zeros[..len] {
            self.file.seek(SeekFrom::Current(i64::try_from(len).unwrap()))?;
            return Ok(len);
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[test]
fn members_and_offsets_above_4_gib_survive() {
    let size = (4 << 30) + 5;
    let zeros = tempfile::tempfile().unwrap();
    zeros.set_len(size).unwrap();
    let zeros = Arc::new(zeros);
    // The CRC is not checked here; inflating 4 GiB would take the time of all other tests.
    let packed = Packed { method: Method::Stored, crc32: 0xdead_beef, compressed_size: size, size };
    let large = Entry {
        name: "large".into(),
        executable: false,
        packed,
        source: Source::Range { file: zeros, offset: 0 },
    };
    let small = Entry {
        name: "small".into(),
        executable: true,
        packed: Packed { method: Method::Stored, crc32: 0x8cdc_1683, compressed_size: 1, size: 1 },
        source: Source::Range { file: Arc::new(file_of(b"?x")), offset: 1 },
    };
    let file = tempfile::Builder::new().suffix(".zip").tempfile().unwrap();
    let mut sparse = Sparse { file: file.reopen().unwrap(), zeros: vec![0; 1 << 20] };
    let written = write(&mut sparse, &[large, small], Timestamp::default()).unwrap();
    assert_eq!(written.size, file.as_file().metadata().unwrap().len());
    let limits = Limits { member_size: u64::MAX, total_size: u64::MAX, ..Limits::default() };
    let archive = Archive::open(file.as_file(), &limits).unwrap();
    assert_eq!(archive.members()[0].packed, packed);
    assert_eq!(archive.members()[1].read(file.as_file()).unwrap(), b"x");
    let mut theirs = zip::ZipArchive::new(file.reopen().unwrap()).unwrap();
    assert_eq!(theirs.by_index(0).unwrap().size(), size);
    assert_eq!(std::io::read_to_string(theirs.by_index(1).unwrap()).unwrap(), "x");
    let python = format!(
        "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); \
         sys.exit(z.getinfo('large').file_size != {size} or z.read('small') != b'x')"
    );
    assert_accepted_by(&["python3", "-c", &python], file.path());
    assert_accepted_by(&["unzip", "-Zh"], file.path());
}
