//! Files that a lock names, for whoever needs no pip to choose them.

use std::sync::Arc;

use super::respond::whole;
use super::{Inner, Server};
use crate::lookup::Listed;
use crate::store::Stored;
use crate::upstream::files::{Place, Want};
use crate::upstream::pages::blocking;
use crate::{Address, Digest, Error, Hashes};

/// A file that is wanted for what its bytes are.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The project's normalised name, for the indexes to be asked when there is no address, or nothing at it.
    pub project: Option<String>,
    /// The file's name, for people.
    pub name: String,
    /// Where it is said to be.
    pub address: Option<Address>,
    /// Its SHA-256.
    pub sha256: Digest,
    /// Its size in bytes, where that is known.
    pub size: Option<u64>,
}

/// A file that an index lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Its SHA-256, where the index says it.
    pub sha256: Option<Digest>,
    /// Whether it was withdrawn, and is for those alone who ask for exactly this one.
    pub yanked: bool,
}

impl Server {
    /// The files that all indexes together have of a project.
    pub async fn offers(&self, project: &str) -> Result<Vec<Offer>, Error> {
        let found = self.inner.lookup.project(project).await?;
        let mut offers = Vec::new();
        for listed in &found.files {
            offers.push(Offer {
                name: listed.want.name.clone(),
                sha256: sha256(listed).await?,
                yanked: listed.yanked.is_some(),
            });
        }
        Ok(offers)
    }

    /// A file: from the store, from its address, or else from an index that lists it.
    pub async fn fetch(&self, wanted: &Wanted) -> Result<Stored, Arc<Error>> {
        let (store, sha256) = (self.inner.store.clone(), wanted.sha256);
        let kept = blocking(move || store.file(&sha256)).await.map_err(Arc::new)?;
        if let Some(stored) = kept {
            return Ok(stored);
        }
        let at_address = match &wanted.address {
            Some(address) => match whole(&self.inner.files, &self.inner.want(wanted, address)).await {
                Ok(stored) => return Ok(stored),
                Err(error) => Some(error),
            },
            None => None,
        };
        match self.inner.listed(wanted).await {
            Ok(Some(listed)) => whole(&self.inner.files, &listed.want).await,
            // What is wrong with the address says more than what an index has not got.
            Ok(None) | Err(_) if at_address.is_some() => Err(at_address.unwrap_or_else(|| gone(wanted))),
            Ok(None) => Err(gone(wanted)),
            Err(error) => Err(Arc::new(error)),
        }
    }
}

fn gone(wanted: &Wanted) -> Arc<Error> {
    Arc::new(Error::NotListed { file: wanted.name.clone(), sha256: wanted.sha256.to_string() })
}

impl Inner {
    fn want(&self, wanted: &Wanted, address: &Address) -> Want {
        let settings = &self.upstream.settings;
        // The login of an index goes to its own host, and nowhere else.
        let index = settings.indexes().into_iter().find(|index| index.origin() == address.origin());
        Want {
            name: wanted.name.clone(),
            place: Place::Web { address: address.clone(), encrypted: address.origin().is_encrypted() },
            index: index.cloned().map(Arc::new),
            hashes: Hashes::new([("sha256".to_owned(), wanted.sha256.to_string())]),
            size: wanted.size,
            limit: settings.limits.file,
        }
    }

    /// The file with these bytes that an index has of the project.
    async fn listed(&self, wanted: &Wanted) -> Result<Option<Arc<Listed>>, Error> {
        let Some(project) = &wanted.project else { return Ok(None) };
        let found = self.lookup.project(project).await?;
        for listed in &found.files {
            if sha256(listed).await? == Some(wanted.sha256) {
                return Ok(Some(Arc::clone(listed)));
            }
        }
        Ok(None)
    }
}

/// What is promised of a file, and what one is that lies here.
async fn sha256(listed: &Listed) -> Result<Option<Digest>, Error> {
    match &listed.want.place {
        Place::Folder(path) => {
            let path = path.clone();
            Ok(Some(blocking(move || Ok(Digest::of_reader(fs_err::File::open(path)?)?)).await?))
        }
        Place::Web { .. } => Ok(listed.want.hashes.sha256()),
    }
}
