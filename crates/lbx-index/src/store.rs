//! The store: every file by the digest of its bytes, pages as they were last seen, and which file an index meant
//! where it gave no SHA-256.
//!
//! ```text
//! root/                 0700, owned by the caller, not a symbolic link; every file 0600
//!   files/sha256/HEX    files, byte for byte
//!   pages/HEX.json      pages, by the hash of their address, with what a server needs to say that they are the same
//!   known/HEX.json      which digest a file turned out to have, by the hash of index, address, name and promises
//!   tmp/                work under way; whoever works holds a lock on `KEY.lock`, or on the file itself
//! ```
//!
//! Documents end in a checksum, because what they say is believed: a page that its server calls unchanged is not had again.
//! Whoever reads something sets its time, so that it is known what was not used for long.
//!
//! Whatever has its final name is complete: it was written under `tmp/` and renamed. Nothing here has a login or the
//! query of an address in it.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use lbx_lock::Claim;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::hashes::Verifier;
use crate::{Digest, Error, Hashes, Page};

/// What tells names of one process apart.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// How much is read at once, in bytes.
const PIECE: usize = 128 << 10;
/// How long the checksum of a document is, with the line feed before it. Bytes.
const CHECKSUM: usize = 9;
/// The largest document that is read back, in bytes.
const DOCUMENT: u64 = 512 << 20;

/// A store on disk. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Store {
    root: Arc<PathBuf>,
    /// Files that were read as a whole by this process and were what their names say.
    verified: Arc<Mutex<HashSet<Digest>>>,
}

/// A file of the store, open and verified.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its SHA-256.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Where it is.
    pub path: PathBuf,
    pub(crate) file: Arc<std::fs::File>,
}

/// A page as it was last seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// What the server calls this state of the page.
    pub(crate) etag: Option<String>,
    /// When the page was last changed, in the server's words.
    pub(crate) modified: Option<String>,
    /// None where the index does not have the project.
    pub(crate) page: Option<Page>,
}

/// Of a [`Kept`], what a server needs to say that it is the same.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct State {
    pub(crate) etag: Option<String>,
    pub(crate) modified: Option<String>,
}

/// Which file it was.
#[derive(Serialize, Deserialize)]
struct Known {
    digest: Digest,
}

/// The right to make something. Dropping it takes away what was left half made.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: fs::File,
}

/// A file in the making.
#[derive(Debug)]
pub(crate) struct Part {
    file: fs::File,
    lock: Lock,
}

impl Stored {
    /// A file from anywhere, to be sent. Nobody looks at its digest.
    pub(crate) fn of(path: &Path) -> Result<Self, Error> {
        let file = fs::File::open(path)?;
        let size = file.metadata()?.len();
        let digest = Digest::of(&[]);
        Ok(Self { digest, size, path: path.to_owned(), file: Arc::new(file.into_file()) })
    }
}

impl Store {
    /// Opens the store, creating what is missing, and removes what processes that are gone left in `tmp/`.
    ///
    /// `root` must belong to the caller, be no symbolic link, and not be writable by others; it is made 0700.
    pub fn open(root: &Path) -> Result<Self, Error> {
        if let Some(parent) = root.parent() {
            fs::create_dir_all(parent)?;
        }
        make_private(root)?;
        check_root(root)?;
        for part in ["files", "files/sha256", "pages", "known", "tmp"] {
            make_private(&root.join(part))?;
        }
        let store = Self { root: Arc::new(root.to_path_buf()), verified: Arc::default() };
        store.sweep();
        Ok(store)
    }

    /// Where a file is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("files/sha256").join(digest.to_string())
    }

    /// The file with a digest. Its bytes are verified when this process opens it for the first time; one that was
    /// damaged is removed, and counts as absent.
    pub fn file(&self, digest: &Digest) -> Result<Option<Stored>, Error> {
        let path = self.path(digest);
        let Some(file) = optional(fs::File::open(&path))? else { return Ok(None) };
        touch(&path);
        let size = file.metadata()?.len();
        let seen = || self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen().contains(digest) {
            if digest_of(&file)? != *digest {
                tracing::warn!(path = %path.display(), "a file of the store was damaged, and is removed");
                optional(fs::remove_file(&path))?;
                return Ok(None);
            }
            seen().insert(*digest);
        }
        let (file, _) = file.into_parts();
        Ok(Some(Stored { digest: *digest, size, path, file: Arc::new(file) }))
    }

    /// Takes the right to make what has this key, if nobody has it.
    pub(crate) fn try_lock(&self, key: &str) -> Result<Option<Lock>, Error> {
        let path = self.tmp(&format!("{key}.lock"));
        let file = private().create(true).truncate(false).write(true).open(&path)?;
        // One that has no name any more is not the lock of whatever is made next.
        let held = match lbx_lock::claim(file.file())? {
            Claim::Held => same_file(&file, &path)?,
            Claim::Taken => false,
            Claim::Unknown => return self.own_lock(key).map(Some),
        };
        // Only who holds it may drop it.
        Ok(if held { Some(Lock { path, _file: file }) } else { None })
    }

    /// Where there are no locks, two may make the same, each in a file of its own.
    fn own_lock(&self, key: &str) -> Result<Lock, Error> {
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = self.tmp(&format!("{key}-{}-{number}.lock", std::process::id()));
            match private().create_new(true).write(true).open(&path) {
                Ok(file) => return Ok(Lock { path, _file: file }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Begins a file.
    pub(crate) fn begin(lock: Lock) -> Result<Part, Error> {
        let path = lock.path.with_extension("part");
        let file = private().create(true).truncate(true).read(true).write(true).open(path)?;
        Ok(Part { file, lock })
    }

    /// Gives a file that is whole its name.
    pub(crate) fn commit(&self, part: Part, digest: Digest) -> Result<Stored, Error> {
        part.file.sync_all()?;
        let path = self.path(&digest);
        let size = part.file.metadata()?.len();
        fs::rename(part.file.path(), &path)?;
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
        let (file, _) = part.file.into_parts();
        Ok(Stored { digest, size, path, file: Arc::new(file) })
    }

    /// Copies a file of the user's into the store, as far as it is what was promised.
    pub(crate) fn copy(
        &self,
        lock: Lock,
        from: &Path,
        promised: &Hashes,
    ) -> Result<Result<Stored, crate::hashes::Mismatch>, Error> {
        let mut part = Self::begin(lock)?;
        let mut source = fs::File::open(from)?;
        let mut verifier = Verifier::new(promised);
        let mut piece = vec![0; PIECE];
        loop {
            match source.read(&mut piece)? {
                0 => break,
                count => {
                    verifier.update(&piece[..count]);
                    part.write(&piece[..count])?;
                }
            }
        }
        match verifier.finish() {
            Ok(digest) => self.commit(part, digest).map(Ok),
            Err(mismatch) => Ok(Err(mismatch)),
        }
    }

    pub(crate) fn known(&self, key: &str) -> Option<Digest> {
        document(&self.known_path(key)).map(|known: Known| known.digest)
    }

    pub(crate) fn put_known(&self, key: &str, digest: Digest) -> Result<(), Error> {
        self.put_document(&self.known_path(key), &Known { digest })
    }

    pub(crate) fn page(&self, key: &str) -> Option<Kept> {
        document(&self.page_path(key))
    }

    /// What a server needs to say that a page is the same. The page is not made for that: there are some with thousands of
    /// files.
    pub(crate) fn state(&self, key: &str) -> Option<State> {
        document(&self.page_path(key))
    }

    pub(crate) fn put_page(&self, key: &str, kept: &Kept) -> Result<(), Error> {
        self.put_document(&self.page_path(key), kept)
    }

    fn known_path(&self, key: &str) -> PathBuf {
        self.root.join("known").join(format!("{key}.json"))
    }

    fn page_path(&self, key: &str) -> PathBuf {
        self.root.join("pages").join(format!("{key}.json"))
    }

    fn tmp(&self, name: &str) -> PathBuf {
        self.root.join("tmp").join(name)
    }

    fn put_document(&self, path: &Path, value: &impl Serialize) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec(value).map_err(io::Error::from)?;
        bytes.extend_from_slice(&checksum(&bytes));
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let temporary = self.tmp(&format!("{}-{number}.new", std::process::id()));
            let mut file = match private().create_new(true).write(true).open(&temporary) {
                Ok(file) => file,
                // Process ids repeat, also between containers that share the store.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error.into()),
            };
            // A sweeper may have been faster.
            if lbx_lock::mark(file.file()) && file.metadata()?.nlink() > 0 {
                file.write_all(&bytes)?;
                return Ok(fs::rename(&temporary, path)?);
            }
        }
    }

    /// Removes the work of processes that are gone: their locks are free. What can't be removed does no harm.
    fn sweep(&self) {
        let entries = match fs::read_dir(self.root.join("tmp")) {
            Ok(entries) => entries,
            Err(error) => return tracing::debug!(%error, "nothing is swept"),
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|extension| extension != "part")
                && let Err(error) = sweep_one(&path)
            {
                tracing::debug!(%error, path = %path.display(), "the work of a process that is gone stays");
            }
        }
    }
}

impl Part {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.file.write_all(bytes)?)
    }

    /// Forgets what was written.
    pub(crate) fn restart(&mut self) -> Result<(), Error> {
        self.file.set_len(0)?;
        Ok(io::Seek::rewind(&mut self.file)?)
    }

    /// For somebody who reads along.
    pub(crate) fn reader(&self) -> Result<std::fs::File, Error> {
        let (file, _) = fs::File::open(self.lock.path.with_extension("part"))?.into_parts();
        Ok(file)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = optional(fs::remove_file(self.path.with_extension("part")));
        let _ = optional(fs::remove_file(&self.path));
    }
}

/// What cannot be read counts as absent: it can be had again.
fn document<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let file = fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    file.take(DOCUMENT).read_to_end(&mut bytes).ok()?;
    touch(path);
    let Some(text) = checked(&bytes) else {
        tracing::debug!(path = %path.display(), "what does not have its checksum is left out");
        return None;
    };
    serde_json::from_slice(text)
        .inspect_err(
            |error| tracing::debug!(%error, path = %path.display(), "what cannot be read is left out"),
        )
        .ok()
}

/// Whether a document of the store is what it was when it was written, by its bytes.
pub fn is_document(bytes: &[u8]) -> bool {
    checked(bytes).is_some_and(|text| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok())
}

/// A document without its checksum, if it has that.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (text, sum) = bytes.split_last_chunk::<CHECKSUM>()?;
    (checksum(text) == *sum).then_some(text)
}

/// What stands behind a document. Against accidents, and fast: pages have megabytes.
fn checksum(text: &[u8]) -> [u8; CHECKSUM] {
    let mut crc = flate2::Crc::new();
    crc.update(text);
    let mut sum = [b'\n'; CHECKSUM];
    sum[1..].copy_from_slice(format!("{:08x}", crc.sum()).as_bytes());
    sum
}

/// Sets the time of a file to now, by the clock of the file system. It is no error where nobody may.
fn touch(path: &Path) {
    let of = |nanoseconds| Timespec { tv_sec: 0, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: of(UTIME_OMIT), last_modification: of(UTIME_NOW) };
    if let Err(error) = rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()) {
        tracing::debug!(%error, path = %path.display(), "the use is not noted");
    }
}

fn sweep_one(path: &Path) -> Result<(), Error> {
    // Another sweeper may have been faster at every step.
    let Some(file) = optional(fs::OpenOptions::new().write(true).open(path))? else { return Ok(()) };
    if !lbx_lock::is_left_behind(file.file()) || !same_file(&file, path)? {
        return Ok(());
    }
    optional(fs::remove_file(path.with_extension("part")))?;
    optional(fs::remove_file(path))?;
    Ok(())
}

fn same_file(file: &fs::File, path: &Path) -> Result<bool, Error> {
    let (held, named) = (file.metadata()?, optional(fs::symlink_metadata(path))?);
    Ok(named.is_some_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())))
}

fn digest_of(mut file: &fs::File) -> Result<Digest, Error> {
    let mut verifier = Verifier::new(&Hashes::default());
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            count => verifier.update(&piece[..count]),
        }
    }
    // Without promises there is none to break.
    verifier.finish().map_err(|_| io::Error::other("no promise, and yet one broken").into())
}

fn private() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.mode(0o600);
    options
}

fn make_private(path: &Path) -> Result<(), Error> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(io::Error::new(error.kind(), format!("mkdir {}: {error}", path.display())).into())
        }
        _ => Ok(()),
    }
}

fn check_root(root: &Path) -> Result<(), Error> {
    let found = fs::symlink_metadata(root)?;
    let refuse = |problem: &str| Err(Error::Store { path: root.to_path_buf(), problem: problem.to_owned() });
    if found.is_symlink() {
        return refuse("it is a symbolic link");
    }
    if !found.is_dir() {
        return refuse("it is not a directory");
    }
    let me = rustix::process::geteuid().as_raw();
    if found.uid() != me {
        return refuse(&format!("it belongs to user {}, expected {me}", found.uid()));
    }
    if found.mode() & 0o022 != 0 {
        return refuse(&format!("others can write to it (mode {:o}, expected 700)", found.mode() & 0o7777));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(root, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn optional<T>(result: io::Result<T>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let home = tempfile::tempdir().expect("a directory");
        let store = Store::open(&home.path().join("deep/index")).expect("a store");
        (home, store)
    }

    fn put(store: &Store, bytes: &[u8]) -> Stored {
        let lock = store.try_lock("key").expect("no error").expect("free");
        let mut part = Store::begin(lock).expect("a part");
        part.write(bytes).expect("written");
        store.commit(part, Digest::of(bytes)).expect("kept")
    }

    #[test]
    fn a_file_comes_back_by_its_digest_and_a_damaged_one_is_absent() {
        let (_home, store) = store();
        assert!(store.file(&Digest::of(b"bytes")).expect("no error").is_none());
        let stored = put(&store, b"bytes");
        assert_eq!((stored.size, stored.digest), (5, Digest::of(b"bytes")));
        assert_eq!(fs::metadata(&stored.path).expect("a file").mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(store.root.join("tmp")).expect("tmp").count(), 0);
        fs::write(&stored.path, b"bites").expect("damage");
        let again = Store::open(&store.root).expect("the store opens again");
        assert!(again.file(&stored.digest).expect("no error").is_none());
        assert!(!stored.path.exists());
    }

    #[test]
    fn one_at_a_time_makes_a_file_and_what_is_dropped_leaves_nothing() {
        let (_home, store) = store();
        let lock = store.try_lock("key").expect("no error").expect("free");
        assert!(store.try_lock("key").expect("no error").is_none());
        assert!(store.try_lock("other").expect("no error").is_some());
        let part = Store::begin(lock).expect("a part");
        assert!(store.try_lock("key").expect("no error").is_none());
        assert_eq!(
            fs::read_dir(store.root.join("tmp")).expect("tmp").count(),
            2,
            "who came late took nothing"
        );
        drop(part);
        assert_eq!(fs::read_dir(store.root.join("tmp")).expect("tmp").count(), 0);
        assert!(store.try_lock("key").expect("no error").is_some());
    }

    #[test]
    fn opening_sweeps_what_the_dead_left_and_nothing_of_the_living() {
        let (_home, store) = store();
        let tmp = store.root.join("tmp");
        for name in ["dead.lock", "dead.part", "1-1.new"] {
            fs::write(tmp.join(name), b"x").expect("a file");
        }
        let living = Store::begin(store.try_lock("key").expect("no error").expect("free")).expect("a part");
        Store::open(&store.root).expect("the store opens again");
        assert_eq!(fs::read_dir(&tmp).expect("tmp").count(), 2);
        drop(living);
        assert_eq!(fs::read_dir(&tmp).expect("tmp").count(), 0);
    }

    #[test]
    fn documents_come_back_and_unreadable_ones_are_absent() {
        let (_home, store) = store();
        assert_eq!(store.known("k"), None);
        store.put_known("k", Digest::of(b"x")).expect("kept");
        assert_eq!(store.known("k"), Some(Digest::of(b"x")));
        fs::write(store.known_path("k"), b"{").expect("damage");
        assert_eq!(store.known("k"), None);
    }

    #[test]
    fn a_document_that_was_changed_or_cut_off_is_absent() {
        let (_home, store) = store();
        store.put_known("k", Digest::of(b"x")).expect("kept");
        let whole = fs::read(store.known_path("k")).expect("a document");
        assert!(is_document(&whole));
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            for bytes in [&changed[..], &whole[..at]] {
                assert!(!is_document(bytes), "byte {at}");
                fs::write(store.known_path("k"), bytes).expect("damage");
                assert_eq!(store.known("k"), None, "byte {at}");
            }
        }
    }

    #[test]
    fn whoever_reads_something_sets_its_time() {
        let (_home, store) = store();
        store.put_known("k", Digest::of(b"x")).expect("kept");
        let (document, file) = (store.known_path("k"), put(&store, b"bytes"));
        let old = std::time::UNIX_EPOCH;
        for path in [&document, &file.path] {
            fs::File::options()
                .write(true)
                .open(path)
                .expect("a file")
                .file()
                .set_modified(old)
                .expect("set");
        }
        assert!(store.known("k").is_some() && store.file(&file.digest).expect("no error").is_some());
        for path in [&document, &file.path] {
            assert_ne!(fs::metadata(path).and_then(|found| found.modified()).expect("a time"), old);
        }
    }

    #[test]
    fn the_store_is_private_and_refuses_links_and_directories_others_can_write() {
        let (home, store) = store();
        assert_eq!(fs::metadata(&*store.root).expect("the root").mode() & 0o777, 0o700);
        let link = home.path().join("link");
        symlink(&*store.root, &link).expect("a link");
        assert!(matches!(Store::open(&link), Err(Error::Store { .. })));
        fs::set_permissions(&*store.root, std::fs::Permissions::from_mode(0o777)).expect("a mode");
        assert!(matches!(Store::open(&store.root), Err(Error::Store { .. })));
    }
}
