//! ELF bytes: what a library needs of others, and the same library without symbols and debug data.
//!
//! [`Elf::parse`] reads what the dynamic loader would read: it follows program headers, not section headers,
//! because a library works without the latter. [`VersionName`] puts the versions that it finds into order.
//! [`strip()`] makes a file smaller without a change to any byte that is loaded, and refuses every layout
//! that it does not understand.
//!
//! Both read strangers' bytes. They never panic, loops end after a number of steps that the file's size
//! bounds, and memory stays below a small multiple of the file's size. This crate has no I/O, no
//! environment and no async.
//!
//! ```
//! use lbx_elf::{Elf, VersionName, is_elf};
//!
//! # fn example(bytes: &[u8]) -> Result<(), lbx_elf::ElfError> {
//! let limit = VersionName::parse("GLIBC_2.34");
//! if is_elf(bytes) {
//!     for need in Elf::parse(bytes)?.needs {
//!         if VersionName::parse(&need.version) > limit {
//!             println!("{} of {} is too new", need.version, need.library);
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The format is the System V ABI's, chapters 4 and 5, with the GNU extensions of the Linux Standard Base
//! (symbol versions).

mod dynamic;
mod error;
mod headers;
mod read;
mod strip;
mod symbols;
mod version_name;
mod versions;

pub use error::{ElfError, StripRefused};
pub use headers::{Class, Kind, Machine};
pub use read::{Elf, is_elf};
pub use strip::{Stripped, strip};
pub use symbols::UndefinedSymbol;
pub use version_name::VersionName;
pub use versions::VersionNeed;
