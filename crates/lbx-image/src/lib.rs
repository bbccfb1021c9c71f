//! Registry to root file system: pull, verify, store, unpack.
//!
//! [`pull()`] turns a [`Reference`] into an [`Image`] whose layers are in a [`Store`], each as a tree of files that
//! belong to the caller. Nothing needs root, a daemon or a namespace. Mounting the trees on top of each other is
//! left to the sandbox; where overlayfs is refused, [`flatten()`] merges them into one tree.
//!
//! ```no_run
//! # async fn example() -> Result<(), lbx_image::Error> {
//! use lbx_image::{Platform, PullOptions, Reference, Store};
//!
//! let store = Store::open("/home/me/.cache/lbx".as_ref())?;
//! let reference = Reference::parse("public.ecr.aws/lambda/python:3.11")?;
//! let options = PullOptions::new(Platform::linux("amd64"));
//! let image = lbx_image::pull(&store, &reference, &options, &|event| drop(event)).await?;
//! for tree in image.layer_trees() {
//!     assert!(tree.is_dir());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Modules: `reference` and `manifest` read what others wrote; `registry` fetches it; `store` keeps it; `pull`
//! is the order of things; [`unpack`] applies one layer; `overlay` says whether layers can be stacked as they are;
//! `flatten` merges them; `remove` removes trees.

mod download;
mod error;
mod event;
mod flatten;
mod image;
mod manifest;
mod overlay;
mod pull;
mod reference;
mod registry;
mod remove;
mod store;
mod transfer;
pub mod unpack;

pub use self::error::{Cause, Error};
pub use self::event::{Event, LayerSize, Origin};
pub use self::flatten::{copy_tree, flat_name, flatten};
pub use self::image::{Image, ImageConfig, Layer, Platform};
pub use self::pull::{PullOptions, pull, pull_from};
pub use self::reference::{Digest, Reference};
pub use self::registry::{MemoryRegistry, Outlet, Registry, Remote};
pub use self::remove::remove_tree;
pub use self::store::{Scratch, Store, is_working};
pub use lbx_net::{CertificateProblem, ProxyOptions};
