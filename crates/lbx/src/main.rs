//! Builds AWS Lambda zips and layers for Python in the real Lambda image, without Docker, daemon or root.
fn main() {}
