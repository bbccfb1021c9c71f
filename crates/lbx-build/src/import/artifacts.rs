//! The imports after a build: which handlers, and of what their functions are made.

use std::fs::File;
use std::sync::Arc;

use lbx_archive::Limits;
use lbx_plan::{Artifact, Imports as When, Kind};

use super::{Function, import};
use crate::builder::Builder;
use crate::check::Finding;
use crate::error::Error;
use crate::publish::Staging;
use crate::resolve::{folder, image_error};
use crate::tree::{self, OWN};
use crate::workshop::Workshop;

/// What imports the handlers of a build's functions.
pub(crate) struct Imports<'i> {
    builder: Arc<Builder>,
    staging: &'i Staging,
}

impl<'i> Imports<'i> {
    /// None where nothing is to be imported, or nothing can be: what is for another CPU does not run here.
    pub(crate) fn of(workshop: &Workshop, staging: &'i Staging) -> Result<Option<Self>, Error> {
        let context = workshop.context();
        let plan = &context.plan;
        let is_wanted = match plan.imports {
            When::Auto => workshop.opened().is_some(),
            When::Always => plan.artifacts.iter().any(|artifact| artifact.handler.is_some()),
            When::Never => false,
        };
        if !is_wanted || !context.options.check || plan.arch != context.build_arch {
            return Ok(None);
        }
        Ok(Some(Self { builder: workshop.builder()?, staging }))
    }

    /// What is wrong with the import of an artifact's handler, if it has one.
    pub(crate) fn of_artifact(&self, artifact: &Artifact) -> Result<Vec<Finding>, Error> {
        let (Kind::Function, Some(handler)) = (artifact.kind, &artifact.handler) else {
            return Ok(Vec::new());
        };
        let context = self.builder.context();
        let scratch = context.ground.store.scratch().map_err(|source| image_error(context, source))?;
        let work = scratch.path("import");
        let (task, layers) = (folder(&work, "task")?, folder(&work, "opt")?);
        let cancel = &context.ground.cancel;
        if let Some(zip) = self.staging.read_zip(&artifact.name)? {
            tree::unpack(&zip, &OWN, &task, cancel)?;
        }
        // Of two layers with the same file, the later one has it.
        for name in artifact.layers.iter().rev() {
            let Some((zip, limits)) = self.layer(name)? else {
                let message = "the handler is not imported: a layer is neither built nor in its place";
                tracing::info!(function = artifact.name, layer = name, message);
                return Ok(Vec::new());
            };
            tree::unpack(&zip, &limits, &layers, cancel)?;
        }
        let layers = (!artifact.layers.is_empty()).then_some(layers.as_path());
        let function = Function { name: &artifact.name, handler, task: &task, layers };
        import(self.builder.site(), self.builder.base(), &function, &work)
    }

    /// The zip of a layer: of this build, or an earlier one, which may be anybody's by now.
    fn layer(&self, name: &str) -> Result<Option<(File, Limits)>, Error> {
        if let Some(zip) = self.staging.read_zip(name)? {
            return Ok(Some((zip, OWN)));
        }
        let place = self.builder.context().options.destination.folder().join(format!("{name}.zip"));
        Ok(fs_err::File::open(place).ok().map(|zip| (zip.into_file(), Limits::default())))
    }
}
