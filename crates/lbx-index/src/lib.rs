//! Package indexes: ask them outside, serve inside, keep every file by digest.

#![expect(dead_code, reason = "what asks indexes for pages comes next")]

mod address;
mod credentials;
mod error;
mod hashes;
mod name;
mod page;
pub mod settings;
mod store;
mod upstream;

pub use self::address::{Address, Login, Origin, Password, SafeUrl};
pub use self::credentials::{Credentials, Keyring, Netrc};
pub use self::error::{Cause, Error};
pub use self::hashes::{Digest, Hashes};
pub use self::name::{normalize, version_of};
pub use self::page::{File, Page, Status};
pub use self::settings::{ClientCertificate, FindLinks, Limits, Settings, Strategy, Timeouts, TrustedHost};
pub use self::store::{Store, Stored};
