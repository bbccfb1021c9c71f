//! Where commands run, for builds and for sessions alike: the image, the store, and the way to isolate them.

use std::fs::File;
use std::ops::Deref;
use std::sync::Arc;

use lbx_image::{Image, Scratch, Store};
use lbx_plan::{Architecture, ImageChoice};
use lbx_sandbox::{Backend, Chosen, Emulator, Machine, NoEmulation, Root, Spec};

use crate::cache;
use crate::cancel::Cancel;
use crate::engine::{Host, PullRequest};
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::limits::Limits;

/// A host, and what is wanted of it. Nothing runs here yet.
pub(crate) struct Ground {
    pub(crate) choice: ImageChoice,
    pub(crate) host: Host,
    /// What each command may use, and how long one that is waited for may take.
    pub(crate) limits: Limits,
    pub(crate) cancel: Cancel,
    pub(crate) observer: Observer,
    pub(crate) store: Store,
    /// Nothing is removed from the store while this is open.
    _hold: Option<File>,
}

/// An image on a host, and all that is needed to run commands in it.
pub(crate) struct Site {
    pub(crate) ground: Arc<Ground>,
    /// Where roots are made that cannot be mounted.
    pub(crate) scratch: Scratch,
    /// How sandboxes are isolated.
    pub(crate) isolation: Chosen,
    /// What runs the image's programs where they are another CPU's, or why nothing does. The host may have an emulator of
    /// its own all the same.
    pub(crate) emulation: Option<Result<Emulator, NoEmulation>>,
}

impl Deref for Site {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl Ground {
    /// Opens the store.
    pub(crate) fn open(
        choice: ImageChoice,
        host: Host,
        limits: Limits,
        cancel: &Cancel,
        observer: &Observer,
    ) -> Result<Self, Error> {
        let store = Store::open(&host.cache_dir).map_err(Error::store)?;
        let hold = cache::hold(&host.cache_dir);
        let (cancel, observer) = (cancel.clone(), Arc::clone(observer));
        Ok(Self { choice, host, limits, cancel, observer, store, _hold: hold })
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.observer)(event);
    }
}

impl Site {
    /// Chooses how to isolate commands, and fetches the image if it has to be.
    pub(crate) async fn open(ground: Arc<Ground>, offline: bool) -> Result<(Self, Image), Error> {
        let Ground { choice, host, cancel, observer, store, .. } = &*ground;
        // A host that cannot do it says so before anything is fetched for it.
        let scratch = store.scratch().map_err(|source| Error::image(&choice.image, source))?;
        let isolation = choose(host, &scratch)?;
        observer(isolated(&isolation));
        let (reference, arch) = (choice.image.as_str(), choice.arch);
        let request = PullRequest { reference, arch, offline, host, cancel, observer };
        let image = request.pull_into(store).await?;
        let emulation = emulation(&ground, isolation.backend);
        Ok((Self { ground, scratch, isolation, emulation }, image))
    }

    /// The specification with all that the way to isolate it asks for.
    pub(crate) fn isolate(&self, mut spec: Spec) -> Result<Spec, Error> {
        spec.backend = self.isolation.backend;
        spec.limits = self.limits.resources;
        spec.emulator = self.emulation.as_ref().and_then(|found| found.as_ref().ok()).cloned();
        // Some roots are not mounted but made, and that needs room.
        if !spec.backend.stacks_layers() {
            let directory = self.scratch.path("root");
            fs_err::create_dir(&directory)?;
            spec.scratch = Some(directory);
            if let Root::Tree(tree) = &spec.root {
                // It goes with the tree. The number is for another layout of what is kept.
                spec.kept = Some(tree.with_file_name("root-1"));
            }
        }
        Ok(spec)
    }
}

fn choose(host: &Host, scratch: &Scratch) -> Result<Chosen, Error> {
    let directory = scratch.path("sandbox");
    fs_err::create_dir(&directory)?;
    Ok(host.launcher.choose(host.backend, host.require, &directory)?)
}

fn emulation(ground: &Ground, backend: Backend) -> Option<Result<Emulator, NoEmulation>> {
    let arch = ground.choice.arch;
    if arch.machine() == std::env::consts::ARCH {
        return None;
    }
    let machine = match arch {
        Architecture::X86_64 => Machine::X86_64,
        Architecture::Arm64 => Machine::Aarch64,
    };
    Some(ground.host.launcher.emulator(machine, backend))
}

fn isolated(chosen: &Chosen) -> Event {
    let refused = chosen.refused.iter().map(|(backend, error)| format!("{backend}: {error}")).collect();
    Event::Isolated { backend: chosen.backend, claims: chosen.claims, refused }
}
