//! Registry to root file system: pull, verify, store, unpack.
