//! What a pull tells while it runs. A closed set: whoever renders progress handles all of it.
//!
//! Words, bars and units are left to the caller.

use crate::Digest;

/// One step of a pull. Layers are named by their index, lowest first, as in [`Event::Resolved`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The reference is being turned into a manifest.
    Resolving,
    /// The manifest is known and verified.
    Resolved {
        /// The digest of the image's manifest.
        digest: Digest,
        /// The layers, lowest first.
        layers: Vec<LayerSize>,
    },
    /// A layer's download begins.
    LayerStarted {
        /// Which layer.
        index: usize,
    },
    /// A layer's download went on.
    LayerProgress {
        /// Which layer.
        index: usize,
        /// Compressed bytes received in all.
        bytes: u64,
    },
    /// A request failed in a way that may pass; it is made again after a pause.
    Retrying {
        /// Which layer.
        index: usize,
        /// What went wrong, in one line.
        reason: String,
    },
    /// A layer's compressed bytes are verified and being unpacked.
    UnpackStarted {
        /// Which layer.
        index: usize,
    },
    /// A layer's unpacking went on.
    UnpackProgress {
        /// Which layer.
        index: usize,
        /// Compressed bytes consumed in all, on the scale of [`LayerSize::size`].
        bytes: u64,
    },
    /// A layer is in the store.
    LayerDone {
        /// Which layer.
        index: usize,
        /// Where it came from.
        origin: Origin,
    },
}

/// A layer's place in the progress: its name and how much there is to transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSize {
    /// The digest of the compressed bytes.
    pub digest: Digest,
    /// Compressed bytes.
    pub size: u64,
}

/// Where a layer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Its tree was in the store.
    Cached,
    /// Its compressed bytes were in the store, and were unpacked.
    Unpacked,
    /// It was transferred and unpacked.
    Downloaded,
}
