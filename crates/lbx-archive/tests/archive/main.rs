//! The archive crate against hostile input, against other implementations, and against itself.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod mutation;
#[cfg(test)]
mod prefix;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod round_trip;
#[cfg(test)]
mod support;
#[cfg(test)]
mod zip64;
