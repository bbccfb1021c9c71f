//! What all indexes together have of a project, as one session sees it: asked once, and then the same until its end.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use tokio::sync::OnceCell;

use crate::name::{is_distribution, version_of};
use crate::upstream::client::Upstream;
use crate::upstream::files::{Place, Want};
use crate::upstream::pages::blocking;
use crate::{Address, Digest, Error, File, FindLinks, Hashes, Page, SafeUrl, Status, Store, Strategy};

/// How much of a hash tells files apart in one session, in digits.
const SHORT: usize = 24;

/// A session's view of the indexes.
#[derive(Debug)]
pub(crate) struct Lookup {
    upstream: Arc<Upstream>,
    store: Store,
    /// Pages of links to files of any project, by their place in the settings.
    pages: Vec<OnceCell<Page>>,
    projects: Mutex<HashMap<String, Arc<OnceCell<Arc<Project>>>>>,
}

/// What there is of a project.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) files: Vec<Arc<Listed>>,
    /// What an index says against it.
    pub(crate) warnings: Vec<Arc<Error>>,
    /// Whether any index has it.
    pub(crate) exists: bool,
}

/// A file of a project, and where it is.
#[derive(Debug)]
pub(crate) struct Listed {
    /// What tells it apart from others of the same name.
    pub(crate) id: String,
    pub(crate) project: Option<String>,
    pub(crate) want: Want,
    pub(crate) requires_python: Option<String>,
    pub(crate) yanked: Option<String>,
    /// What is promised of its metadata, where that can be had alone.
    pub(crate) metadata: Option<Hashes>,
    pub(crate) upload_time: Option<String>,
    /// What lists it.
    pub(crate) index: Option<Arc<SafeUrl>>,
}

/// What lists files, once for all of them: there are pages with thousands.
struct Lister {
    address: Arc<Address>,
    safe: Arc<SafeUrl>,
}

impl Lister {
    fn new(address: &Address) -> Self {
        Self { address: Arc::new(address.clone()), safe: Arc::new(address.safe()) }
    }
}

impl Listed {
    pub(crate) fn version(&self) -> Option<String> {
        version_of(self.project.as_deref()?, &self.want.name)
    }

    /// Its metadata, as a file of its own.
    pub(crate) fn metadata(&self, limit: u64) -> Option<Want> {
        let hashes = self.metadata.clone()?;
        let Place::Web { address, encrypted } = &self.want.place else { return None };
        let place = Place::Web { address: address.with_suffix(".metadata"), encrypted: *encrypted };
        let name = format!("{}.metadata", self.want.name);
        Some(Want { name, place, index: self.want.index.clone(), hashes, size: None, limit })
    }
}

/// A file that was named by its address.
pub(crate) fn direct(address: &Address, limit: u64) -> Option<Listed> {
    let name = address.file_name().filter(|name| is_distribution(name))?;
    let encrypted = address.origin().is_encrypted();
    let want = Want {
        name,
        place: Place::Web { address: address.clone(), encrypted },
        index: None,
        hashes: address.url().fragment().map(Hashes::from_pair).unwrap_or_default(),
        size: None,
        limit,
    };
    Some(Listed { id: identity(&want), ..bare(None, want, None) })
}

fn bare(project: Option<String>, want: Want, index: Option<Arc<SafeUrl>>) -> Listed {
    let (id, requires_python, yanked) = (identity(&want), None, None);
    Listed { id, project, want, requires_python, yanked, metadata: None, upload_time: None, index }
}

fn identity(want: &Want) -> String {
    let place = match &want.place {
        Place::Web { address, .. } => address.url().to_string(),
        Place::Folder(path) => path.display().to_string(),
    };
    let text = format!("{place}\0{}\0{}", want.name, want.hashes.best().unwrap_or_default());
    Digest::of(text.as_bytes()).to_string().chars().take(SHORT).collect()
}

impl Lookup {
    pub(crate) fn new(upstream: Arc<Upstream>, store: Store) -> Self {
        let pages = upstream.settings.find_links.iter().map(|_| OnceCell::new()).collect();
        Self { upstream, store, pages, projects: Mutex::default() }
    }

    /// All there is of a project. A failure is not remembered.
    pub(crate) async fn project(&self, name: &str) -> Result<Arc<Project>, Error> {
        let cell = {
            let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(projects.entry(name.to_owned()).or_default())
        };
        cell.get_or_try_init(|| async { self.gather(name).await.map(Arc::new) }).await.cloned()
    }

    async fn gather(&self, name: &str) -> Result<Project, Error> {
        let mut project = Project { files: Vec::new(), warnings: Vec::new(), exists: false };
        let mut seen = BTreeSet::new();
        // As pip does it: what lies around here, and then what was linked, goes before what indexes have.
        for (number, links) in self.upstream.settings.find_links.iter().enumerate() {
            let listed = match links {
                FindLinks::Folder(path) => self.folder(path, name).await?,
                FindLinks::Page(address) => self.linked(number, address, name).await?,
            };
            project.exists |= !listed.is_empty();
            project.add(listed, &mut seen);
        }
        for (index, page) in self.indexes(name).await? {
            project.exists = true;
            if page.status == Status::Quarantined {
                let (project_name, reason) = (name.to_owned(), page.reason.clone());
                let error = Error::Quarantined { project: project_name, index: index.safe(), reason };
                project.warnings.push(Arc::new(error));
            }
            let lister = Lister::new(&index);
            let listed = page.files.into_iter().map(|file| self.listed(name, file, &lister)).collect();
            project.add(listed, &mut seen);
        }
        Ok(project)
    }

    /// The pages of the indexes that count for this project, in order.
    async fn indexes(&self, name: &str) -> Result<Vec<(Address, Page)>, Error> {
        let indexes = self.upstream.settings.indexes();
        let ask = async |index: &Address| {
            let page = self.upstream.page(&self.store, &index.project(name)).await?;
            Ok::<_, Error>(page.map(|page| (index.clone(), page)))
        };
        match self.upstream.settings.strategy {
            Strategy::BestMatch => {
                let pages = try_join_all(indexes.into_iter().map(ask)).await?;
                Ok(pages.into_iter().flatten().collect())
            }
            // One that cannot be asked is not passed over: it may have the project.
            Strategy::FirstMatch => {
                for index in indexes {
                    if let Some(found) = ask(index).await? {
                        return Ok(vec![found]);
                    }
                }
                Ok(Vec::new())
            }
        }
    }

    fn listed(&self, project: &str, file: File, index: &Lister) -> Listed {
        let encrypted = index.address.origin().is_encrypted();
        let want = Want {
            name: file.name,
            place: Place::Web { address: file.address, encrypted },
            index: Some(Arc::clone(&index.address)),
            hashes: file.hashes,
            size: file.size,
            limit: self.upstream.settings.limits.file,
        };
        Listed {
            requires_python: file.requires_python,
            yanked: file.yanked,
            metadata: file.metadata,
            upload_time: file.upload_time,
            ..bare(Some(project.to_owned()), want, Some(Arc::clone(&index.safe)))
        }
    }

    async fn linked(&self, number: usize, address: &Address, project: &str) -> Result<Vec<Listed>, Error> {
        if let Some(one) = direct(address, self.upstream.settings.limits.file) {
            let ours = version_of(project, &one.want.name).is_some();
            let one =
                Listed { project: Some(project.to_owned()), index: Some(Arc::new(address.safe())), ..one };
            return Ok(if ours { vec![one] } else { Vec::new() });
        }
        let Some(cell) = self.pages.get(number) else { return Ok(Vec::new()) };
        let page = cell
            .get_or_try_init(|| async {
                Ok::<_, Error>(self.upstream.page(&self.store, address).await?.unwrap_or_default())
            })
            .await?;
        let ours = page.files.iter().filter(|file| version_of(project, &file.name).is_some());
        let lister = Lister::new(address);
        Ok(ours.map(|file| self.listed(project, file.clone(), &lister)).collect())
    }

    async fn folder(&self, path: &Path, project: &str) -> Result<Vec<Listed>, Error> {
        let (folder, wanted) = (path.to_path_buf(), project.to_owned());
        let mut names = blocking(move || {
            let mut names = Vec::new();
            for entry in fs_err::read_dir(&folder)? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if version_of(&wanted, &name).is_some() && folder.join(&name).is_file() {
                    names.push(name);
                }
            }
            Ok(names)
        })
        .await?;
        names.sort();
        let limit = self.upstream.settings.limits.file;
        let index = Arc::new(SafeUrl::folder(path));
        Ok(names
            .into_iter()
            .map(|name| {
                let place = Place::Folder(path.join(&name));
                let want = Want { name, place, index: None, hashes: Hashes::default(), size: None, limit };
                bare(Some(project.to_owned()), want, Some(Arc::clone(&index)))
            })
            .collect())
    }
}

impl Project {
    /// Adds files. The same file in two places is one; two files of one name are two, and pip sees both.
    fn add(&mut self, listed: Vec<Listed>, seen: &mut BTreeSet<(String, String)>) {
        for one in listed {
            let told_apart = one.want.hashes.best().unwrap_or_else(|| one.id.clone());
            if seen.insert((one.want.name.clone(), told_apart)) {
                self.files.push(Arc::new(one));
            }
        }
    }
}
