//! The stages meet here: from a plan to published zips.
