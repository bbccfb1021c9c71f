//! The images that sources are built in: the runtime's own, and those that have compilers, each fetched when the first
//! source wants it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::{Made, Source};
use lbx_plan::Architecture;

use crate::base::Base;
use crate::engine::Context;
use crate::error::Error;
use crate::site::{Ground, Site};

/// An image, ready for what is built in it.
pub(crate) struct Kitchen {
    pub(crate) site: Site,
    pub(crate) base: Base,
}

/// One that is fetched when it is wanted.
type Cell = Arc<OnceCell<Arc<Kitchen>>>;

/// All of them, by what they are called, and their CPU.
pub(super) struct Kitchens {
    own: Arc<Kitchen>,
    others: Mutex<HashMap<(String, &'static str), Cell>>,
}

impl Kitchens {
    pub(super) fn new(site: Site, base: Base) -> Self {
        Self { own: Arc::new(Kitchen { site, base }), others: Mutex::default() }
    }

    /// The runtime's own.
    pub(super) fn own(&self) -> &Arc<Kitchen> {
        &self.own
    }

    /// Those that were fetched besides.
    pub(super) fn others(&self) -> Vec<Arc<Kitchen>> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = others.values().filter_map(|cell| cell.get().cloned()).collect();
        all.sort_by(|left, right| left.site.choice.image.cmp(&right.site.choice.image));
        all
    }

    /// The one that a source is to be built in.
    pub(super) fn of(
        &self,
        context: &Context,
        source: &Source,
        arch: Architecture,
        runtime: &Handle,
    ) -> Result<Arc<Kitchen>, Error> {
        let image = context.plan.build_image(source.project().as_deref());
        if image == context.plan.image && arch == context.build_arch {
            return Ok(Arc::clone(&self.own));
        }
        let cell = {
            let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(others.entry((image.to_owned(), arch.lambda())).or_default())
        };
        runtime.block_on(cell.get_or_try_init(|| open(context, image, arch))).cloned()
    }
}

async fn open(context: &Context, image: &str, arch: Architecture) -> Result<Arc<Kitchen>, Error> {
    let ground = &context.ground;
    let choice = lbx_plan::ImageChoice { image: image.to_owned(), arch, ..ground.choice.clone() };
    let ground = Ground::open(choice, ground.host.clone(), ground.limits, &ground.cancel, &ground.observer)?;
    let (site, image) = Site::open(Arc::new(ground), context.options.offline).await?;
    let work = tokio::task::spawn_blocking(move || {
        let base = Base::prepare(&site, image)?;
        Ok(Arc::new(Kitchen { site, base }))
    });
    work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

impl Source {
    /// The name of the project, where the name of its file says it.
    fn project(&self) -> Option<String> {
        let Made::Distribution { .. } = self.made else { return None };
        let stem = self.name.strip_suffix(".tar.gz").or_else(|| self.name.strip_suffix(".zip"))?;
        Some(stem.rsplit_once('-')?.0.to_owned())
    }
}
