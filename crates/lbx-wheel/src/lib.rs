//! The wheel model: read, verify, map as pip maps, store by digest.
