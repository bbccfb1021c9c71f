//! The one time that a wheel is read from end to end: found consistent, held against RECORD, mapped, and its
//! uncompressed members compressed. Keeping the result is `store`'s.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use lbx_archive::{Archive, Compressor, Limits, Member, Method};
use sha2::{Digest as _, Sha256};

use crate::interrupt::GoOn;
use crate::layout::{self, Kind, LeftOut, Place};
use crate::metadata::{self, EntryPoint, Metadata, normalize_name};
use crate::record::{self, Line, Longer};
use crate::wheel::{InstalledFile, Location};
use crate::{WheelError, WheelFilename, same_version};

/// All that is known about a wheel after reading it; `index` stores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) metadata: Metadata,
    pub(crate) root_is_purelib: bool,
    pub(crate) dist_info: String,
    pub(crate) console_scripts: Vec<EntryPoint>,
    pub(crate) gui_scripts: Vec<EntryPoint>,
    pub(crate) files: Vec<InstalledFile>,
    pub(crate) left_out: Vec<LeftOut>,
    /// Bytes written to the sidecar.
    pub(crate) sidecar_size: u64,
}

/// Files inside `.dist-info` above this are not metadata that anything reads.
const MAX_METADATA: u64 = 64 << 20;
/// Stored members above this stay stored: compressing takes them into memory.
const MAX_COMPRESS: u64 = 256 << 20;
/// Threads that inflate and hash.
const THREADS: usize = 4;
/// Bytes inflated at a time, per thread.
const BUFFER: usize = 128 << 10;

/// What the first pass over a member's content finds.
#[derive(Debug, Clone, Copy)]
struct Seen {
    sha256: [u8; 32],
    /// The content starts with `#!python`.
    shebang: bool,
}

/// Reads and verifies the wheel in `file`; compressed forms of stored members go to `sidecar`.
pub(crate) fn import(
    file: &File,
    filename: &WheelFilename,
    limits: &Limits,
    sidecar: &mut dyn Write,
    go_on: GoOn<'_>,
) -> Result<Contents, WheelError> {
    let archive = Archive::open(file, limits)?;
    let dist_info = find_dist_info(&archive, filename)?;
    let read = |name: &str| read_metadata(file, &archive, &format!("{dist_info}/{name}"));
    let metadata = metadata::parse_metadata(&format!("{dist_info}/METADATA"), &read("METADATA")?)?;
    check_identity(filename, &metadata)?;
    let wheel = metadata::parse_wheel(&format!("{dist_info}/WHEEL"), &read("WHEEL")?)?;
    let lines = record::parse(&read("RECORD")?)?;
    let entry_points = format!("{dist_info}/entry_points.txt");
    let (console_scripts, gui_scripts) = match archive.find(&entry_points) {
        Some(_) => metadata::parse_entry_points(&entry_points, &read("entry_points.txt")?)?,
        None => Default::default(),
    };

    let members: Vec<&Member> = archive.members().iter().filter(|member| !member.is_dir).collect();
    check_record(&members, &lines, &dist_info)?;
    let seen = verify_all(file, &members, &lines, go_on)?;

    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let scripts: Vec<&EntryPoint> = console_scripts.iter().chain(&gui_scripts).collect();
    let places = layout::place(&names, filename, &dist_info, &scripts)?;
    let mut anew = Anew { file, sidecar, go_on, position: 0, compressor: Compressor::default() };
    let (files, left_out) = collect(&members, &seen, places, &mut anew)?;
    Ok(Contents {
        metadata,
        root_is_purelib: wheel.root_is_purelib,
        dist_info,
        console_scripts,
        gui_scripts,
        files,
        left_out,
        sidecar_size: anew.position,
    })
}

/// The one `.dist-info` directory at the root, which must be this distribution's and version's.
fn find_dist_info(archive: &Archive, filename: &WheelFilename) -> Result<String, WheelError> {
    let mut found: Vec<&str> = archive
        .members()
        .iter()
        .filter_map(|member| member.name.split_once('/'))
        .map(|(root, _)| root)
        .filter(|root| root.to_ascii_lowercase().ends_with(".dist-info"))
        .collect::<HashSet<_>>()
        .into_iter()
        .collect();
    found.sort_unstable();
    let is_ours = |root: &str| {
        root.strip_suffix(".dist-info").and_then(|stem| stem.rsplit_once('-')).is_some_and(
            |(name, version)| {
                normalize_name(name) == normalize_name(&filename.name)
                    && same_version(version, &filename.version)
            },
        )
    };
    match found[..] {
        [root] if is_ours(root) => Ok(root.to_owned()),
        _ => Err(WheelError::DistInfo {
            expected: format!("{} {}", filename.name, filename.version),
            found: found.into_iter().map(str::to_owned).collect(),
        }),
    }
}

fn read_metadata(file: &File, archive: &Archive, name: &str) -> Result<Vec<u8>, WheelError> {
    let member = archive.find(name).ok_or_else(|| WheelError::Missing { member: name.to_owned() })?;
    if member.packed.size > MAX_METADATA {
        let what = format!("{} bytes, the limit is {MAX_METADATA}", member.packed.size);
        return Err(WheelError::Malformed { member: name.to_owned(), what });
    }
    member.read(file).map_err(|source| WheelError::Content { member: name.to_owned(), source })
}

fn check_identity(filename: &WheelFilename, metadata: &Metadata) -> Result<(), WheelError> {
    if normalize_name(&filename.name) != normalize_name(&metadata.name) {
        return Err(WheelError::Mismatch {
            field: "name",
            expected: filename.name.clone(),
            found: metadata.name.clone(),
        });
    }
    if !same_version(&filename.version, &metadata.version) {
        return Err(WheelError::Mismatch {
            field: "version",
            expected: filename.version.clone(),
            found: metadata.version.clone(),
        });
    }
    Ok(())
}

/// Every member has a line with a digest that counts, and every line a member.
fn check_record(
    members: &[&Member],
    lines: &HashMap<String, Line>,
    dist_info: &str,
) -> Result<(), WheelError> {
    // RECORD cannot hold its own digest, and its signatures come after it.
    let exempt = ["RECORD", "RECORD.jws", "RECORD.p7s"].map(|name| format!("{dist_info}/{name}"));
    for Member { name, .. } in members {
        match lines.get(name) {
            _ if exempt.contains(name) => {}
            None => return Err(WheelError::NotRecorded { member: name.clone() }),
            Some(Line { checksum: None, .. }) => return Err(WheelError::NoDigest { member: name.clone() }),
            Some(_) => {}
        }
    }
    let names: HashSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    match lines.keys().filter(|path| !names.contains(path.as_str())).min() {
        Some(path) => Err(WheelError::RecordedButMissing { member: path.clone() }),
        None => Ok(()),
    }
}

/// Inflates every member and holds it against its header and its line, the largest first, on several threads. The
/// error, if any, is that of the first member in the archive's order.
fn verify_all(
    file: &File,
    members: &[&Member],
    lines: &HashMap<String, Line>,
    go_on: GoOn<'_>,
) -> Result<Vec<Seen>, WheelError> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(members[at].packed.size));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut buffer = vec![0; BUFFER];
        let mut done = Vec::new();
        while let Some(&at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let member = members[at];
            done.push((at, verify(file, member, lines.get(&member.name), &mut buffer, go_on)));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut results = work();
        for other in others {
            match other.join() {
                Ok(more) => results.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|&(at, _)| at);
    results.into_iter().map(|(_, result)| result).collect()
}

fn verify(
    file: &File,
    member: &Member,
    line: Option<&Line>,
    buffer: &mut [u8],
    go_on: GoOn<'_>,
) -> Result<Seen, WheelError> {
    let mismatch = |what| WheelError::RecordMismatch { member: member.name.clone(), what };
    if line.and_then(|line| line.size).is_some_and(|size| size != member.packed.size) {
        return Err(mismatch("size"));
    }
    let mut content = member.open(file);
    let mut sha256 = Sha256::new();
    let mut longer = Longer::for_line(line);
    let mut start = Vec::<u8>::with_capacity(SHEBANG.len());
    loop {
        go_on.check()?;
        let count = match content.read(buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(source) => return Err(WheelError::Content { member: member.name.clone(), source }),
        };
        let bytes = &buffer[..count];
        start.extend(bytes.iter().take(SHEBANG.len() - start.len()));
        sha256.update(bytes);
        longer.update(bytes);
    }
    let sha256 = sha256.finalize().into();
    match line.and_then(|line| longer.mismatch(line, sha256)) {
        Some(what) => Err(mismatch(what)),
        None => Ok(Seen { sha256, shebang: start == SHEBANG }),
    }
}

/// What pip looks for at the start of a script.
const SHEBANG: &[u8] = b"#!python";

/// Pairs members, what was seen in them and their places, sorted by path.
fn collect(
    members: &[&Member],
    seen: &[Seen],
    places: Vec<Place>,
    anew: &mut Anew<'_>,
) -> Result<(Vec<InstalledFile>, Vec<LeftOut>), WheelError> {
    let mut files = Vec::with_capacity(members.len());
    let mut left_out = Vec::new();
    for ((member, seen), place) in members.iter().zip(seen).zip(places) {
        let (path, kind) = match place {
            Place::At { path, kind: Kind::Script { .. } } => (path, Kind::Script { shebang: seen.shebang }),
            Place::At { path, kind } => (path, kind),
            Place::Nowhere(reason) => {
                left_out.push(LeftOut { member: member.name.clone(), reason });
                continue;
            }
        };
        let (packed, location) = anew.compress(member)?;
        files.push(InstalledFile {
            path,
            member: member.name.clone(),
            kind,
            executable: is_executable(member.unix_mode),
            packed,
            location,
            sha256: seen.sha256,
        });
    }
    files.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    left_out.sort_unstable_by(|left, right| left.member.cmp(&right.member));
    Ok((files, left_out))
}

/// pip's rule: a mode that says "regular file" and has any x bit. A mode without a file type does not count.
fn is_executable(mode: Option<u32>) -> bool {
    mode.is_some_and(|mode| mode & 0o170_000 == 0o100_000 && mode & 0o111 != 0)
}

/// Compresses stored members into the sidecar.
struct Anew<'a> {
    file: &'a File,
    sidecar: &'a mut dyn Write,
    go_on: GoOn<'a>,
    position: u64,
    compressor: Compressor,
}

impl Anew<'_> {
    /// Where the member's bytes are to be taken from: the wheel, or the sidecar if they are smaller there.
    fn compress(&mut self, member: &Member) -> Result<(lbx_archive::Packed, Location), WheelError> {
        let as_is = (member.packed, Location::Wheel { offset: member.data_offset });
        if member.packed.method != Method::Stored
            || member.packed.size == 0
            || member.packed.size > MAX_COMPRESS
        {
            return Ok(as_is);
        }
        self.go_on.check()?;
        let content = member
            .read(self.file)
            .map_err(|source| WheelError::Content { member: member.name.clone(), source })?;
        let (packed, bytes) = self.compressor.compress(&content);
        if packed.method == Method::Stored {
            return Ok(as_is);
        }
        self.sidecar.write_all(&bytes)?;
        let offset = self.position;
        self.position += packed.compressed_size;
        Ok((packed, Location::Sidecar { offset }))
    }
}
