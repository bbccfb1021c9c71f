//! Packs wheels into one zip and says how long each step took: `package STORE OUT.zip WHEEL…`. For measuring by
//! hand; pruning, sources and conflicts are not its business.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use lbx_archive::Timestamp;
use lbx_wheel::{Digest, WheelStore};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(root), Some(out)) = (arguments.next(), arguments.next()) else {
        return Err("usage: package STORE OUT.zip WHEEL…".into());
    };
    let started = Instant::now();
    let store = WheelStore::open(&root)?;
    let digests = arguments
        .map(|path| Ok(store.add(&path)?.digest))
        .collect::<Result<Vec<Digest>, Box<dyn Error>>>()?;
    let added = started.elapsed();

    // A new store knows nothing in memory, as in a new process.
    let started = Instant::now();
    let store = WheelStore::open(&root)?;
    let mut entries = Vec::new();
    for digest in digests {
        let wheel = store.get(digest)?.ok_or("a wheel is gone")?;
        let open = wheel.open()?;
        entries.extend(
            wheel
                .files
                .iter()
                .filter(|file| !file.path.ends_with("/RECORD"))
                .map(|file| wheel.entry(file, &open)),
        );
    }
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    let listed = started.elapsed();
    let writing = Instant::now();
    let mut file = fs_err::File::create(&out)?;
    let written = lbx_archive::write(&mut file, &entries, Timestamp::default())?;
    let (wrote, together) = (writing.elapsed(), started.elapsed());
    writeln!(
        io::stdout(),
        "{} entries, {} bytes, sha256 {}\nadd {added:?}; list {listed:?}, write {wrote:?}, together {together:?}",
        entries.len(),
        written.size,
        hex::encode(written.sha256),
    )?;
    Ok(())
}
