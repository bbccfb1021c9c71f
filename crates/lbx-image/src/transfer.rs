//! Images from one store to another without a registry between them.

use std::io::Read;

use fs_err as fs;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{Digest, Error, Image, Reference, Store};

/// The most bytes of a manifest, as when it is pulled.
const LARGEST_MANIFEST: u64 = 4 << 20;

#[derive(Deserialize)]
struct Manifest {
    config: Named,
    layers: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    digest: String,
}

impl Image {
    /// The digests of all that the store keeps of it, each once: its index, its manifest, its configuration, its layers.
    pub fn blobs(&self, store: &Store) -> Result<Vec<Digest>, Error> {
        let path = store.blob_path(&self.manifest_digest);
        let damaged = |problem: String| Error::Damaged { path: path.clone(), problem };
        let manifest = store.read_document(&self.manifest_digest, LARGEST_MANIFEST)?;
        let manifest = manifest.ok_or_else(|| damaged("it is gone".to_owned()))?;
        let manifest: Manifest =
            serde_json::from_slice(&manifest).map_err(|error| damaged(error.to_string()))?;
        let mut digests: Vec<Digest> =
            self.index_digest.iter().chain([&self.manifest_digest]).cloned().collect();
        for named in [manifest.config].into_iter().chain(manifest.layers) {
            let digest =
                Digest::parse(&named.digest).map_err(|_| damaged("it names no digest".to_owned()))?;
            // Layers can be there twice.
            if !digests.contains(&digest) {
                digests.push(digest);
            }
        }
        Ok(digests)
    }
}

impl Store {
    /// Takes a blob in, which must have this digest. One that is there stays.
    pub fn import_blob(&self, digest: &Digest, mut reader: impl Read) -> Result<(), Error> {
        let path = self.blob_path(digest);
        if path.is_file() {
            return Ok(());
        }
        let scratch = self.scratch()?;
        let work = scratch.path("blob");
        let (mut file, mut hash, mut buffer) = (fs::File::create(&work)?, Sha256::new(), vec![0; 128 << 10]);
        loop {
            let count = reader.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            std::io::Write::write_all(&mut file, &buffer[..count])?;
        }
        if hex::encode(hash.finalize()) != digest.hex() {
            return Err(Error::Damaged {
                path,
                problem: "what was brought for it has another digest".to_owned(),
            });
        }
        self.commit_blob(&work, digest)
    }

    /// Takes note of what a reference stands for, as if it had been pulled.
    pub fn import_tag(&self, reference: &Reference, digest: &Digest) -> Result<(), Error> {
        self.put_tag(&self.scratch()?, reference, digest)
    }
}
