//! The stages meet here: from a plan to published zips.
//!
//! [`Project`] reads what the user wrote, [`lbx_plan::Plan`] says what it means, and [`build`] does it:
//! the image, pip in the sandbox once per dependency set, and one zip per artifact, published by
//! rename. What happens meanwhile is told to an [`Observer`]; nothing here prints, asks the environment
//! or what time it is. A [`Cancel`] stops a build at any point and leaves nothing behind.
//!
//! [`diff()`] says in what two zips differ, and [`inspect()`] what is wrong with one that lies somewhere.
//!
//! [`run`] runs a command of the user's in the place that builds have, with the project beside it.

mod advice;
mod archive;
mod base;
mod builder;
mod bytecode;
pub mod cache;
mod cancel;
mod check;
mod dependencies;
mod diff;
mod digest;
mod engine;
mod error;
mod event;
mod explain;
mod import;
mod index;
mod inspect;
mod installed;
mod limits;
mod listing;
mod lock;
mod locked;
mod measure;
mod own;
mod pack;
mod page;
mod pip;
mod project;
mod publish;
mod record;
mod report;
mod resolve;
mod session;
mod site;
mod source;
mod stamp;
mod suspect;
mod system;
mod tree;
mod vendor;
mod workshop;

pub use cancel::Cancel;
pub use check::{Check, Finding, Severity};
pub use dependencies::pack_wheels;
pub use diff::{
    ChangedFile, ChangedPackage, Content, Difference, FileChanges, Mode, PackageChanges, PackageVersion,
    Pair, ZipFacts, ZipFile, diff,
};
pub use engine::{Destination, Host, Options, Outcome, PREVIOUS, PullRequest, Pulled, build, pull};
pub use error::{BytecodeError, Error, ErrorKind, PackagesError, SourceError, ZipError};
pub use event::{Event, Observer};
pub use explain::{Explained, Explanation, Explanations, Fate, Files, Size, explain};
pub use inspect::{Inspected, Inspection, Judge, inspect};
pub use lbx_archive::Limits as ZipLimits;
pub use lbx_image::ProxyOptions;
pub use limits::{Breach, Limits, TimeLimits, bytes};
pub use listing::LeftOut;
pub use lock::{LockWritten, Upgrade, lock};
pub use measure::{CacheReport, Measured, Reuse, SandboxReport, Seconds};
pub use page::Page;
pub use project::{Project, Variable};
pub use record::{Basis, Start, Unchanged, remember, unchanged};
pub use report::{
    ArtifactReport, BuiltReport, ImageReport, Report, SetReport, Stable, Sum, TakenReport, WheelReport,
};
pub use session::{Link, Program, Session, SessionEnd, run};
pub use vendor::{Vendored, vendor};
