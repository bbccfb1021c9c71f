//! `pull STORE REFERENCE [ARCHITECTURE] [offline]`: one pull, for tests that kill it and for profiling.
//!
//! The command people use is `lbx pull`.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use lbx_image::{Platform, PullOptions, Reference, Store};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, store, reference, rest @ ..] = arguments.as_slice() else {
        return Err("usage: pull STORE REFERENCE [ARCHITECTURE] [offline]".into());
    };
    let architecture = rest.first().map_or("amd64", String::as_str);
    let mut options = PullOptions::new(Platform::linux(architecture));
    options.offline = rest.iter().any(|word| word == "offline");
    options.backoff = Duration::from_millis(20);
    let reference = Reference::parse(reference)?;
    lbx_image::pull(&Store::open(Path::new(store))?, &reference, &options, &|_| ()).await?;
    Ok(())
}
