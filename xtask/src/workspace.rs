//! Where things are in the checkout. Paths only; nothing is created here.

use std::path::{Path, PathBuf};

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The data of the stand-in images' recipes.
pub(crate) fn standin_recipes() -> PathBuf {
    root().join("images/standin")
}

/// Where assembled stand-in images are kept.
pub(crate) fn standin_images() -> PathBuf {
    root().join("target/standin")
}
