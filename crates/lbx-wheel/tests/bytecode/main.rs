//! Bytecode: the form that depends on nothing but values, against hand-made and hostile streams and against
//! interpreters, and the compiler program in every interpreter that is found.

#[cfg(test)]
mod compiler;
#[cfg(test)]
mod frames;
#[cfg(test)]
mod interpreters;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod streams;
