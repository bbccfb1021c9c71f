//! The content-addressed store: what was verified once is found by its digest.
//!
//! ```text
//! root/                    0700, owned by the caller, not a symbolic link
//!   blobs/sha256/<hex>     manifests, configurations and compressed layers, byte for byte
//!   layers/v1/<hex>/       one layer, by diffID: `tree/` and `layer.json`
//!   flat/v1/<hex>/         the layers of an image merged, by the hash of their diffIDs
//!   refs/<hex>.json        which digest a tag had when it was last pulled
//!   tmp/<name>/            work of one process; `tmp/<name>.lock` is locked while it lives
//! ```
//!
//! Whatever has its final name is complete: it was written under `tmp/` and renamed. That holds when a process
//! is killed at any moment. After a power failure a tree may have lost file contents that the kernel had not
//! written yet; blobs, which trees can be made from again, are synced before their rename.
//!
//! Two processes that make the same thing both make it; the second rename finds it there and drops its own.
//!
//! What was damaged afterwards counts as absent while there is a registry to ask: it is made anew and replaced.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fs_err as fs;
use rustix::fs::{IFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::unpack::LayerRecord;
use crate::{Digest, Error, Reference, remove_tree};

/// A store on disk. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Store {
    root: Arc<PathBuf>,
}

/// The most bytes of a record of a tag.
const RECORD: u64 = 4096;

/// What a tag pointed at.
#[derive(Debug, Serialize, Deserialize)]
struct TagRecord {
    reference: String,
    digest: Digest,
}

/// A layer found in the store.
#[derive(Debug, Clone)]
pub(crate) struct StoredLayer {
    pub(crate) tree: PathBuf,
    pub(crate) record: LayerRecord,
}

impl Store {
    /// Opens the store, creating what is missing, and removes what processes that are gone left in `tmp/`.
    ///
    /// `root` must belong to the caller, be no symbolic link, and not be writable by others; it is made 0700.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::open_or_make(root).map_err(|error| error.making_store(root))
    }

    fn open_or_make(root: &Path) -> Result<Self, Error> {
        if let Some(parent) = root.parent() {
            fs::create_dir_all(parent)?;
        }
        make_private(root)?;
        check_root(root)?;
        for part in ["blobs", "blobs/sha256", "layers", "layers/v1", "flat", "flat/v1", "refs", "tmp"] {
            make_private(&root.join(part))?;
        }
        let store = Self { root: Arc::new(root.to_path_buf()) };
        spread(&store.root.join("tmp"));
        store.sweep();
        Ok(store)
    }

    /// The directory given to [`Store::open`].
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        fs::symlink_metadata(self.blob_path(digest)).is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// Reads a manifest or a configuration, verified again.
    pub(crate) fn read_document(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let path = self.blob_path(digest);
        let Some(found) = optional(fs::symlink_metadata(&path))? else { return Ok(None) };
        if found.len() > limit {
            return Err(Error::TooLarge { what: path.display().to_string(), limit });
        }
        let bytes = fs::read(&path)?;
        if Digest::of(&bytes) == *digest {
            Ok(Some(bytes))
        } else {
            Err(Error::Damaged { path, problem: "its bytes no longer have its digest".to_owned() })
        }
    }

    /// Stores a verified manifest or configuration.
    pub(crate) fn put_document(&self, scratch: &Scratch, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        write_file(scratch, &self.blob_path(digest), bytes)
    }

    /// Moves a verified, synced file from `tmp/` to its place.
    pub(crate) fn commit_blob(&self, file: &Path, digest: &Digest) -> Result<(), Error> {
        Ok(fs::rename(file, self.blob_path(digest))?)
    }

    /// The layer with this diffID, if it is complete and of this version of lbx's format.
    pub(crate) fn layer(&self, diff_id: &Digest) -> Result<Option<StoredLayer>, Error> {
        let directory = self.layer_path(diff_id);
        let path = directory.join("layer.json");
        let Some(bytes) = optional(fs::read(&path))? else { return Ok(None) };
        let damaged = |problem: String| Error::Damaged { path: directory.clone(), problem };
        let record = serde_json::from_slice(&bytes)
            .map_err(|error| damaged(format!("its record cannot be read: {error}")))?;
        let tree = directory.join("tree");
        if !optional(fs::symlink_metadata(&tree))?.is_some_and(|found| found.is_dir()) {
            return Err(damaged("it has no tree".to_owned()));
        }
        Ok(Some(StoredLayer { tree, record }))
    }

    /// Moves `work` (a directory under `tmp/` with a `tree/`) to its place, with its record. A damaged layer that is
    /// there makes room.
    pub(crate) fn commit_layer(
        &self,
        scratch: &Scratch,
        work: &Path,
        diff_id: &Digest,
        record: &LayerRecord,
    ) -> Result<(), Error> {
        let path = work.join("layer.json");
        let bytes = serde_json::to_vec(record).map_err(io::Error::from)?;
        fs::write(&path, bytes)?;
        let target = self.layer_path(diff_id);
        rename_directory(work, &target)?;
        // Whatever is whole there was made by this process or, faster, by another. Only what is known to be damaged
        // is moved, and only now that there is something better.
        if !matches!(self.layer(diff_id), Ok(Some(_))) {
            optional(fs::rename(&target, scratch.path("damaged")))?;
            rename_directory(work, &target)?;
        }
        Ok(())
    }

    pub(crate) fn flat_path(&self, key: &Digest) -> PathBuf {
        self.root.join("flat/v1").join(key.hex())
    }

    pub(crate) fn commit_flat(&self, work: &Path, key: &Digest) -> Result<(), Error> {
        rename_directory(work, &self.flat_path(key))
    }

    /// The digest a tag had when it was last pulled.
    pub(crate) fn tag(&self, reference: &Reference) -> Result<Option<Digest>, Error> {
        let path = self.tag_path(reference);
        let Some(bytes) = optional(fs::read(&path))? else { return Ok(None) };
        let record: TagRecord = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Damaged { path, problem: error.to_string() })?;
        Ok(Some(record.digest))
    }

    /// The tags that were pulled into the store at `root`, with the digest that each had then, by reference. The store is
    /// not opened for it, and need not be there; what cannot be read is left out.
    pub fn tags(root: &Path) -> Vec<(Reference, Digest)> {
        let Ok(entries) = fs::read_dir(root.join("refs")) else { return Vec::new() };
        let read = |path: PathBuf| {
            let is_small =
                fs::symlink_metadata(&path).is_ok_and(|file| file.is_file() && file.len() < RECORD);
            let bytes = is_small.then(|| fs::read(&path).ok()).flatten()?;
            let TagRecord { reference, digest } = serde_json::from_slice(&bytes).ok()?;
            Some((Reference::parse(&reference).ok()?, digest))
        };
        let mut tags: Vec<_> = entries.flatten().filter_map(|entry| read(entry.path())).collect();
        tags.sort_by_cached_key(|(reference, _)| reference.to_string());
        tags
    }

    pub(crate) fn put_tag(
        &self,
        scratch: &Scratch,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<(), Error> {
        let record = TagRecord { reference: reference.to_string(), digest: digest.clone() };
        let bytes = serde_json::to_vec(&record).map_err(io::Error::from)?;
        write_file(scratch, &self.tag_path(reference), &bytes)
    }

    /// A directory of this process's own, removed when the last clone of it goes.
    pub fn scratch(&self) -> Result<Scratch, Error> {
        self.make_scratch().map_err(|error| error.making_store(&self.root))
    }

    fn make_scratch(&self) -> Result<Scratch, Error> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}-{number}", std::process::id());
            let directory = self.root.join("tmp").join(name);
            // A name can be taken: process ids repeat, also between containers that share the store.
            if let Some(lock) = lock_new(&directory.with_extension("lock"))? {
                make_private(&directory)?;
                IN_USE.fetch_add(1, Ordering::Relaxed);
                return Ok(Scratch(Arc::new(ScratchInner {
                    directory,
                    next: AtomicU64::new(0),
                    _lock: lock,
                })));
            }
        }
    }

    fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers/v1").join(diff_id.hex())
    }

    fn tag_path(&self, reference: &Reference) -> PathBuf {
        let key = Digest::of(reference.to_string().as_bytes());
        self.root.join("refs").join(format!("{}.json", key.hex()))
    }

    /// Removes the work of processes that are gone: their locks are free. What can't be removed takes room and does
    /// no other harm, so it must not keep anybody from using the store.
    fn sweep(&self) {
        let entries = match fs::read_dir(self.root.join("tmp")) {
            Ok(entries) => entries,
            Err(error) => return tracing::debug!(%error, "nothing is swept"),
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|extension| extension == "lock")
                && let Err(error) = sweep_one(&path)
            {
                tracing::debug!(%error, lock = %path.display(), "the work of a process that is gone stays");
            }
        }
    }
}

/// How many directories under `tmp/` this process has, in whatever store.
static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// Whether this process has work under way in a store, or is removing what it had begun. Who gives up a pull gets an
/// answer before the threads that unpack have noticed.
pub fn is_working() -> bool {
    IN_USE.load(Ordering::Relaxed) > 0
}

/// A directory under `tmp/` that is locked while it is in use, and removed afterwards.
#[derive(Debug, Clone)]
pub struct Scratch(Arc<ScratchInner>);

#[derive(Debug)]
struct ScratchInner {
    directory: PathBuf,
    next: AtomicU64,
    _lock: fs::File,
}

impl Scratch {
    /// A path in the directory that nobody else was given.
    pub fn path(&self, what: &str) -> PathBuf {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.directory.join(format!("{what}-{number}"))
    }

    /// Waits until nobody else holds the directory: after a failure, threads that write to it need a moment to
    /// notice. What takes longer than that is left to the next process that opens the store.
    pub(crate) async fn alone(&self) {
        for _ in 0..2000 {
            if Arc::strong_count(&self.0) == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for ScratchInner {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next process that opens the store.
        match remove_tree(&self.directory) {
            Ok(()) => drop(fs::remove_file(self.directory.with_extension("lock"))),
            Err(error) => tracing::debug!(%error, "a process's own work stays"),
        }
        IN_USE.fetch_sub(1, Ordering::Relaxed);
    }
}

fn write_file(scratch: &Scratch, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = scratch.path("file");
    let mut file = fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(fs::rename(&temporary, path)?)
}

/// Creates and locks a lock file; `None` when the name is taken or a sweeper was faster.
fn lock_new(path: &Path) -> Result<Option<fs::File>, Error> {
    let file = match fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let locked = lbx_lock::mark(file.file()) && file.metadata()?.nlink() > 0;
    Ok(locked.then_some(file))
}

fn sweep_one(lock: &Path) -> Result<(), Error> {
    // Another sweeper may have been faster at every step.
    let Some(file) = optional(fs::OpenOptions::new().write(true).open(lock))? else { return Ok(()) };
    // Without a name any more, this is not the lock of whatever has that name now.
    if !lbx_lock::is_left_behind(file.file()) || file.metadata()?.nlink() == 0 {
        return Ok(());
    }
    optional(remove_tree(&lock.with_extension("")))?;
    optional(fs::remove_file(lock))?;
    Ok(())
}

fn rename_directory(work: &Path, target: &Path) -> Result<(), Error> {
    match fs::rename(work, target) {
        // Another process made the same thing meanwhile; ours goes with the scratch directory.
        Err(error)
            if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) =>
        {
            Ok(())
        }
        result => Ok(result?),
    }
}

fn make_private(path: &Path) -> Result<(), Error> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => {
            let error = io::Error::from(errno);
            Err(Error::Io(io::Error::new(error.kind(), format!("mkdir {}: {error}", path.display()))))
        }
    }
}

/// Asks ext4 to spread the directories in this one over the disk. It looks for a place for each new file past all that
/// were removed in the last minutes, and what is made here is removed soon. A wish, and no more, on any file system.
fn spread(directory: &Path) {
    let wish = || -> rustix::io::Result<()> {
        let directory =
            rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = rustix::fs::ioctl_getflags(&directory)?;
        if flags.contains(IFlags::TOPDIR) {
            return Ok(());
        }
        rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR)
    };
    if let Err(error) = wish() {
        tracing::debug!(%error, "temporary directories are where the file system puts them");
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
        rustix::fs::chmod(root, Mode::RWXU).map_err(io::Error::from)?;
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
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::remove::tests::{make_deep, make_locked, unprivileged};

    fn temporary() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn the_store_is_private_and_refuses_links_and_directories_others_can_write() {
        let home = temporary();
        let root = home.path().join("deep/store");
        let store = Store::open(&root).expect("a new store");
        assert_eq!(fs::metadata(store.root()).expect("the root").permissions().mode() & 0o777, 0o700);
        let link = home.path().join("link");
        symlink(&root, &link).expect("a link");
        assert!(matches!(Store::open(&link), Err(Error::Store { .. })));
        fs::set_permissions(&root, PermissionsExt::from_mode(0o777)).expect("a mode");
        assert!(matches!(Store::open(&root), Err(Error::Store { .. })));
    }

    #[test]
    fn a_document_comes_back_and_a_damaged_one_is_an_error() {
        let home = temporary();
        let store = Store::open(home.path()).expect("a store");
        let (scratch, digest) = (store.scratch().expect("scratch"), Digest::of(b"text"));
        assert_eq!(store.read_document(&digest, 10).expect("no error"), None);
        store.put_document(&scratch, &digest, b"text").expect("stored");
        assert_eq!(store.read_document(&digest, 10).expect("no error").as_deref(), Some(&b"text"[..]));
        assert!(matches!(store.read_document(&digest, 3), Err(Error::TooLarge { .. })));
        fs::write(store.blob_path(&digest), b"tixt").expect("damage");
        assert!(matches!(store.read_document(&digest, 10), Err(Error::Damaged { .. })));
    }

    #[test]
    fn opening_sweeps_what_the_dead_left_and_nothing_of_the_living() {
        let home = temporary();
        let store = Store::open(home.path()).expect("a store");
        let living = store.scratch().expect("scratch");
        fs::write(living.path("work"), b"x").expect("a file");
        let dead = home.path().join("tmp/1-1");
        fs::create_dir(&dead).expect("a directory");
        fs::write(dead.join("half"), b"x").expect("a file");
        fs::write(home.path().join("tmp/1-1.lock"), b"").expect("a lock nobody holds");
        Store::open(home.path()).expect("the store opens again");
        assert!(!dead.exists());
        assert_eq!(fs::read_dir(home.path().join("tmp")).expect("tmp").count(), 2);
        drop(living);
        assert_eq!(fs::read_dir(home.path().join("tmp")).expect("tmp").count(), 0);
    }

    #[test]
    fn opening_sweeps_directories_without_permissions_as_an_unprivileged_user() {
        let home = temporary();
        unprivileged(|| {
            Store::open(home.path()).expect("a store");
            make_locked(&home.path().join("tmp/1-1"));
            fs::write(home.path().join("tmp/1-1.lock"), b"").expect("a lock nobody holds");
            let store = Store::open(home.path()).expect("the store opens again");
            assert_eq!(fs::read_dir(home.path().join("tmp")).expect("tmp").count(), 0);
            let scratch = store.scratch().expect("scratch");
            make_locked(&scratch.path("work"));
            drop(scratch);
            assert_eq!(fs::read_dir(home.path().join("tmp")).expect("tmp").count(), 0);
        });
    }

    #[test]
    fn opening_sweeps_directories_deeper_than_there_are_descriptors() {
        let home = temporary();
        let store = Store::open(home.path()).expect("a store");
        make_deep(&home.path().join("tmp/1-1"));
        fs::write(home.path().join("tmp/1-1.lock"), b"").expect("a lock nobody holds");
        Store::open(home.path()).expect("the store opens again");
        assert_eq!(fs::read_dir(home.path().join("tmp")).expect("tmp").count(), 0);
        let scratch = store.scratch().expect("scratch");
        make_deep(&scratch.path("work"));
        drop(scratch);
        assert_eq!(fs::read_dir(home.path().join("tmp")).expect("tmp").count(), 0);
    }

    #[test]
    fn what_cannot_be_swept_stays_and_the_store_opens() {
        let home = temporary();
        Store::open(home.path()).expect("a store");
        let tmp = home.path().join("tmp");
        fs::create_dir_all(tmp.join("1-1.lock/no-lock")).expect("a directory in a lock's place");
        fs::create_dir(tmp.join("2-2")).expect("a directory");
        fs::write(tmp.join("2-2.lock"), b"").expect("a lock nobody holds");
        Store::open(home.path()).expect("the store opens again");
        assert!(tmp.join("1-1.lock").exists() && !tmp.join("2-2").exists());
    }
}
