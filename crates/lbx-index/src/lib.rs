//! Package indexes: ask them outside, serve inside, keep every file by digest.
//!
//! pip in the sandbox has no network but one socket. Behind it is a [`Server`], outside the sandbox, which asks the
//! configured indexes in its place. It holds all logins, decides where connections go, verifies every file before the
//! last byte of it goes in, and writes down what was taken.
//!
//! ```no_run
//! # async fn example() -> Result<(), lbx_index::Error> {
//! use lbx_index::{Address, Server, Settings};
//!
//! let index = Address::parse("the index", "https://me:password@index.example.org/simple")?;
//! let server = Server::new(Settings::new(index, "/home/me/.cache/lbx/index"))?;
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! server.listen(listener)?;
//! let session = server.session(&[])?;
//! let for_pip = format!("http://{address}{}", session.index_path());
//! # drop(for_pip);
//! for file in session.finish().files {
//!     assert!(server.store().path(&file.sha256).is_file());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Modules: `settings` and `credentials` say what is asked, and as whom; `page` reads what indexes say, `hashes` what
//! they promise; `upstream` asks; `store` keeps; `lookup` is all indexes as one; `server` serves that; `taken` is what
//! was taken.

mod address;
mod credentials;
mod error;
mod hashes;
mod lookup;
mod name;
mod page;
mod server;
pub mod settings;
mod store;
mod taken;
mod upstream;

pub use self::address::{Address, Login, Origin, Password, SafeUrl};
pub use self::credentials::{Credentials, Keyring, Netrc};
pub use self::error::{Cause, Error};
pub use self::hashes::{Digest, Hashes};
pub use self::name::{normalize, version_of};
pub use self::page::{File, Page, Status};
pub use self::server::{Exchange, Exchanged, Given, Offer, Server, Session, Wanted};
pub use self::settings::{ClientCertificate, FindLinks, Limits, Settings, Strategy, Timeouts, TrustedHost};
pub use self::store::{Store, Stored, is_document};
pub use self::taken::{Failed, Refused, Taken, TakenFile};
