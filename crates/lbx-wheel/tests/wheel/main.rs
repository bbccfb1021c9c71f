//! The wheel crate against hostile wheels, against a store that others kill and damage, and against pip itself.

#[cfg(test)]
mod craft;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod pip_oracle;
#[cfg(test)]
mod store;
