//! The images that sources are built in: the runtime's own, and those that have compilers, each fetched when the first
//! source wants it, with the system packages that it wants.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::{Made, Source};
use lbx_image::Image;
use lbx_plan::Architecture;
use lbx_sandbox::Root;

use crate::base::Base;
use crate::engine::Context;
use crate::error::Error;
use crate::site::{Ground, Site};
use crate::system::{self, Installed};

/// An image on this host.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) site: Arc<Site>,
    pub(crate) image: Image,
    /// Ready for what runs in it, once anything has to: what was built before needs no Python, nor the CPU for it.
    base: Arc<OnceLock<Arc<Base>>>,
}

impl Place {
    fn new(site: Site, image: Image) -> Self {
        Self { site: Arc::new(site), image, base: Arc::default() }
    }

    /// Finds its Python.
    pub(super) fn base(&self) -> Result<&Arc<Base>, Error> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        let base = Base::prepare(&self.site, self.image.clone())?;
        Ok(self.base.get_or_init(|| Arc::new(base)))
    }
}

/// One with system packages, ready for what is built in it.
pub(crate) struct Kitchen {
    pub(crate) place: Place,
    /// The system packages that are to be there, sorted.
    pub(super) packages: Vec<String>,
    /// The root with these. Nothing is installed for a build that never happens.
    installed: Mutex<Option<Installed>>,
}

/// Which image, and for which CPU.
type Name = (String, &'static str);

/// By image and system packages.
type Equipped = HashMap<(Name, Vec<String>), Arc<Kitchen>>;

/// All of them.
pub(super) struct Kitchens {
    /// The runtime's own.
    own: Place,
    own_base: Arc<Base>,
    /// Others, each fetched when it is wanted.
    others: Mutex<HashMap<Name, Arc<OnceCell<Place>>>>,
    /// All of these, each with its system packages.
    equipped: Mutex<Equipped>,
}

impl Kitchen {
    /// The root to build in, with the system packages in it.
    pub(super) fn root(&self, context: &Context, runtime: &Handle) -> Result<Root, Error> {
        let (site, base) = (&self.place.site, self.place.base()?);
        if self.packages.is_empty() {
            return Ok(base.root.clone());
        }
        // Whoever comes second waits for the first.
        let mut installed = self.installed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(installed) = installed.as_ref() {
            return Ok(installed.root.clone());
        }
        let made = system::install(context, (site, base), &self.packages, runtime)?;
        Ok(installed.insert(made).root.clone())
    }

    /// What was installed, names with versions.
    pub(super) fn installed(&self) -> BTreeMap<String, String> {
        let installed = self.installed.lock().unwrap_or_else(PoisonError::into_inner);
        installed.as_ref().map(|installed| installed.packages.clone()).unwrap_or_default()
    }
}

impl Kitchens {
    pub(super) fn new(site: Site, base: Base) -> Self {
        let (own, own_base) = (Place::new(site, base.image.clone()), Arc::new(base));
        let _ = own.base.set(Arc::clone(&own_base));
        Self { own, own_base, others: Mutex::default(), equipped: Mutex::default() }
    }

    /// The runtime's own image.
    pub(super) fn own(&self) -> &Place {
        &self.own
    }

    /// The same, ready for what runs in it.
    pub(super) fn own_base(&self) -> &Base {
        &self.own_base
    }

    /// The images that were fetched besides.
    pub(super) fn others(&self) -> Vec<Place> {
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
        let project = source.project();
        let name = (context.plan.build_image(project.as_deref()).to_owned(), arch.lambda());
        let packages = context.plan.system_packages(project.as_deref()).to_vec();
        let place = self.place(context, &name, arch, runtime)?;
        let mut equipped = self.equipped.lock().unwrap_or_else(PoisonError::into_inner);
        let kitchen = equipped.entry((name, packages.clone()));
        Ok(Arc::clone(
            kitchen.or_insert_with(|| Arc::new(Kitchen { place, packages, installed: Mutex::default() })),
        ))
    }

    fn place(
        &self,
        context: &Context,
        name: &Name,
        arch: Architecture,
        runtime: &Handle,
    ) -> Result<Place, Error> {
        if name.0 == context.plan.image && arch == context.build_arch {
            return Ok(self.own.clone());
        }
        let cell = {
            let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(others.entry(name.clone()).or_default())
        };
        runtime.block_on(cell.get_or_try_init(|| open(context, &name.0, arch))).cloned()
    }
}

async fn open(context: &Context, image: &str, arch: Architecture) -> Result<Place, Error> {
    let ground = &context.ground;
    let choice = lbx_plan::ImageChoice { image: image.to_owned(), arch, ..ground.choice.clone() };
    let ground = Ground::open(choice, ground.host.clone(), ground.limits, &ground.cancel, &ground.observer)?;
    let (site, image) = Site::open(Arc::new(ground), context.options.offline).await?;
    Ok(Place::new(site, image))
}

impl Source {
    /// The name of the project, where that of its file says it, or what lies in it.
    fn project(&self) -> Option<String> {
        if let Made::Distribution { .. } | Made::Path { sha256: Some(_), .. } = self.made {
            let name = self.name.rsplit('/').next().unwrap_or_default();
            let stem = name.strip_suffix(".tar.gz").or_else(|| name.strip_suffix(".zip"))?;
            return Some(stem.rsplit_once('-')?.0.to_owned());
        }
        // Of a commit, the name alone may be known, and nothing lies anywhere.
        if self.path.as_os_str().is_empty() {
            return None;
        }
        let folder = self.path.join(&self.subdirectory);
        // What is no text names nothing, and its build will say what is wrong with it.
        let text = |name: &str| fs_err::read_to_string(folder.join(name)).ok();
        text("pyproject.toml")
            .and_then(|text| lbx_plan::project_name(&text))
            .or_else(|| lbx_plan::setup_name(&text("setup.cfg")?))
    }
}
