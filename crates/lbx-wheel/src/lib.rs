//! The wheel model: read, verify, map as pip maps, store by digest.
//!
//! A wheel enters through [`WheelStore::add`]. Once in its life, every member is inflated and held against RECORD,
//! and the tree that `pip install --target` would make of it is worked out. Both are kept as an index beside the
//! wheel, so that from then on a [`Wheel`] is loaded in a millisecond, and its files go into an archive as
//! [`lbx_archive::Entry`] values that point at the compressed bytes where they are.
//!
//! Which files an artifact leaves out, what it adds, and under which prefix they go is the caller's business. So is
//! running pip: nothing here executes anything.
//!
//! ```no_run
//! # fn main() -> Result<(), lbx_wheel::WheelError> {
//! use std::path::Path;
//! use lbx_wheel::WheelStore;
//!
//! let store = WheelStore::open(Path::new("/var/cache/lbx/wheels"))?;
//! let wheel = store.add(Path::new("six-1.17.0-py2.py3-none-any.whl"))?;
//! let open = wheel.open()?;
//! let entries: Vec<_> = wheel.files.iter().map(|file| wheel.entry(file, &open)).collect();
//! # Ok(())
//! # }
//! ```
//!
//! Modules: `bytecode` (PEP 552), `filename` and `tags` (PEP 427, 425, 600), `version` (PEP 440, for comparing),
//! `metadata` (METADATA, WHEEL, entry_points.txt), `record` (RECORD), `layout` (pip's mapping), `import` (all of them
//! over one archive), `index` (the stored form), `interrupt`, `store`, `derived` (what recipes make of files).

pub mod bytecode;
mod derived;
mod digest;
mod error;
mod filename;
mod import;
mod index;
mod interrupt;
mod layout;
mod metadata;
mod record;
mod store;
mod tags;
mod version;
mod wheel;

pub use derived::{Derived, Made, Piece, Read};
pub use digest::Digest;
pub use error::{TagMismatch, WheelError};
pub use filename::WheelFilename;
pub use layout::{Kind, LeftOut, LeftOutReason};
pub use metadata::{EntryPoint, Metadata, normalize_name};
pub use record::recorded_paths;
pub use store::WheelStore;
pub use tags::Target;
pub use version::same_version;
pub use wheel::{InstalledFile, Location, OpenWheel, Wheel};
