//! The stand-in images behind a real registry on loopback, for the demo, the tests and the bench.

use std::path::Path;

use lbx_testkit::registry::Registry;

use crate::{Result, image, workspace};

/// Assembles the stand-in images of these runtimes, unless that was done before, and serves them as
/// `127.0.0.1:PORT/lambda/python:3.X`, as the real ones are named. Dropping the result ends the server.
pub(crate) fn standin(runtimes: &[&str], data: &Path) -> Result<Registry> {
    let registry = Registry::start(data);
    for runtime in runtimes {
        let layout = image::ensure(runtime, &workspace::standin_images()?, image::Want::Kept)?;
        registry.push_layout(&layout, "lambda/python", runtime.trim_start_matches("python"));
    }
    Ok(registry)
}
