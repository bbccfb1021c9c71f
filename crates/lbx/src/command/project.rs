//! What all commands that need a project share: where its configuration is, and what stands in for one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lbx_plan::{At, Config, Defaults, Overrides, Runtime};

use crate::arguments::Place;
use crate::environment::Environment;
use crate::exit;
use crate::failure::Failure;
use crate::render::Output;

/// The name of the configuration.
pub(super) const CONFIG: &str = "lbx.toml";

/// The configuration: the one that is named, or the first on the way up from the current folder.
pub(super) fn find(place: &Place, environment: &Environment) -> Result<Option<PathBuf>, Failure> {
    let current = &environment.current_dir;
    let Some(named) = &place.config else {
        return Ok(current.ancestors().map(|folder| folder.join(CONFIG)).find(|path| path.exists()));
    };
    let path = current.join(named);
    if path.exists() {
        return Ok(Some(path));
    }
    let message = format!("there is no configuration `{}`", path.display());
    Err(Failure::new(exit::PROJECT, message, None))
}

/// A configuration made of the command line, without functions and layers.
pub(super) fn stand_in(output: &Output, place: &Place) -> Config {
    let runtime = place.runtime.clone().unwrap_or_else(|| {
        output.note(&format!("no --runtime given: taking {}", Runtime::DEFAULT));
        Runtime::DEFAULT.to_owned()
    });
    Config {
        project: lbx_plan::Project {
            runtime: At::nowhere(runtime),
            arch: place.arch.unwrap_or_default(),
            image: None,
            index_strategy: lbx_plan::IndexStrategy::default(),
        },
        defaults: Defaults::default(),
        functions: BTreeMap::new(),
        layers: BTreeMap::new(),
        index: Vec::new(),
        origin: lbx_plan::Origin::default(),
    }
}

/// What the command line says over the configuration.
pub(super) fn overrides(place: &Place, names: &[String]) -> Overrides {
    Overrides {
        names: names.to_vec(),
        runtime: place.runtime.clone(),
        arch: place.arch,
        image: place.image.clone(),
    }
}
