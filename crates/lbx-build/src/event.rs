//! What a build says while it runs: a closed set of events, rendered elsewhere.
//!
//! Nothing in this crate prints. An observer sees events from several threads, in the order in which
//! they happen on each.

use std::path::PathBuf;
use std::sync::Arc;

use lbx_sandbox::{Backend, Claims};

use crate::check::Finding;

/// Something that happened in a build.
#[derive(Clone, Debug)]
pub enum Event {
    /// What will be built, before anything is: one name each for the sets and the artifacts.
    Planned {
        /// The dependency sets, as the artifacts that use them.
        sets: Vec<String>,
        /// The artifacts by name.
        artifacts: Vec<String>,
        /// The CPU that it is for, in Lambda's words, where that is another one than this host's.
        arch: Option<&'static str>,
        /// The image to build in; none where everything is locked, and perhaps nothing has to be built.
        image: Option<String>,
    },
    /// How the image's programs and all build code will be isolated.
    Isolated {
        /// The way.
        backend: Backend,
        /// What holds.
        claims: Claims,
        /// The stronger ways, each with why it does not work here.
        refused: Vec<String>,
    },
    /// The image store or the registry says something.
    Image(lbx_image::Event),
    /// The image is there and has the right Python.
    ImageReady {
        /// The digest of its manifest.
        digest: String,
        /// The version of its Python, such as `3.11.2`.
        python: String,
        /// The version of its pip.
        pip: String,
    },
    /// The package manager of an image starts to install what builds need.
    PackagesStarted {
        /// The image.
        image: String,
        /// The packages that are wanted.
        packages: Vec<String>,
    },
    /// It says a line.
    PackagesLine {
        /// What it says.
        line: String,
    },
    /// It is done.
    PackagesFinished {
        /// The image.
        image: String,
        /// What came into it, names with versions.
        installed: Vec<String>,
        /// The hosts that it came from.
        hosts: Vec<String>,
    },
    /// Nothing keeps the versions of a dependency set where they are.
    Unlocked {
        /// Index of the set.
        set: usize,
        /// Where its lock is, or would be, relative to the project.
        lock: String,
        /// Why the lock that is there is not used.
        why: Option<String>,
    },
    /// pip starts on a dependency set, by its index, or its lock is gone through.
    ResolveStarted {
        /// Index of the set.
        set: usize,
        /// The lock; none when pip resolves.
        lock: Option<String>,
    },
    /// pip says a line.
    ResolveLine {
        /// Index of the set.
        set: usize,
        /// What it says.
        line: String,
    },
    /// What ran beside pip asked for what it cannot have.
    ResolveRefused {
        /// Index of the set.
        set: usize,
        /// What it asked for, with the name of the host.
        what: String,
    },
    /// Two builds of one source gave two wheels.
    NotReproducible {
        /// Index of the set.
        set: usize,
        /// What people call the source.
        source: String,
        /// The first difference.
        what: String,
    },
    /// pip is done, or all of the lock is here, and every wheel is verified and stored.
    ResolveFinished {
        /// Index of the set.
        set: usize,
        /// How many wheels the set has.
        wheels: usize,
        /// The lock that they are from; none when pip resolved.
        lock: Option<String>,
    },
    /// A lock is in its place.
    LockWritten {
        /// Its path, relative to the project.
        path: String,
        /// How many packages it has.
        packages: usize,
        /// What is another than before.
        changes: Vec<String>,
    },
    /// Something in the store is not as it was. It is made anew.
    Damaged {
        /// What.
        path: PathBuf,
    },
    /// A check found something in an artifact.
    Found {
        /// Index of the artifact.
        artifact: usize,
        /// What.
        finding: Finding,
    },
    /// An artifact's zip is being written.
    ArtifactStarted {
        /// Index of the artifact.
        artifact: usize,
    },
    /// An artifact is in its place.
    ArtifactFinished {
        /// Index of the artifact.
        artifact: usize,
        /// Where it is.
        path: PathBuf,
        /// Size of the zip in bytes.
        size: u64,
        /// How many files it holds.
        files: usize,
    },
}

/// Sees events. It is called from several threads.
pub type Observer = Arc<dyn Fn(Event) + Send + Sync>;
