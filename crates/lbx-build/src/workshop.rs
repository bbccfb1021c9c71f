//! Where things are built, opened when the first thing has to be: the sandbox, the image, its Python.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::base::Base;
use crate::builder::Builder;
use crate::engine::Context;
use crate::error::Error;
use crate::index::{Indexes, Places};
use crate::site::Site;

/// A place to build in, which a build without anything to resolve and to build never opens.
pub(crate) struct Workshop {
    context: Arc<Context>,
    indexes: Arc<Indexes>,
    builder: OnceCell<Arc<Builder>>,
}

impl Workshop {
    /// One that is not open yet.
    pub(crate) fn new(context: Arc<Context>, places: Vec<Places>, runtime: Handle) -> Arc<Self> {
        let indexes = Arc::new(Indexes::new(places, runtime));
        Arc::new(Self { context, indexes, builder: OnceCell::new() })
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    /// Chooses how to isolate, and fetches the image, once.
    pub(crate) async fn open(&self) -> Result<&Arc<Builder>, Error> {
        self.builder.get_or_try_init(|| self.make()).await
    }

    /// The same for whoever waits, outside of the runtime.
    pub(crate) fn builder(&self) -> Result<Arc<Builder>, Error> {
        self.indexes.runtime().block_on(self.open()).cloned()
    }

    /// What builds, if anything had to be.
    pub(crate) fn opened(&self) -> Option<&Builder> {
        self.builder.get().map(|builder| &**builder)
    }

    async fn make(&self) -> Result<Arc<Builder>, Error> {
        let ground = Arc::clone(&self.context.ground);
        let (site, image) = Site::open(ground, self.context.options.offline).await?;
        let (context, indexes) = (Arc::clone(&self.context), Arc::clone(&self.indexes));
        let work = tokio::task::spawn_blocking(move || {
            let base = Base::prepare(&site, image)?;
            indexes.tell_default(base.index.as_deref())?;
            Ok(Builder::new(context, site, base, indexes))
        });
        work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}
