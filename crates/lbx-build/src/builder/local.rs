//! What a set names that is in the project, beside it, or in a repository: built before pip runs.

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_plan::{DependencySet, Elsewhere, Hidden};
use lbx_wheel::Wheel;
use sha2::{Digest, Sha256};

use super::{Builder, Errand, Made, Source, git};
use crate::error::Error;
use crate::resolve::{Elsewheres, built_place, folder};
use crate::source;

/// The name of something that is elsewhere.
pub(crate) fn key(place: Elsewhere<'_>) -> String {
    match place {
        Elsewhere::Url(url) | Elsewhere::Repository(url) => url.expose().to_owned(),
        Elsewhere::Path(path) => path.to_owned(),
    }
}

/// The wheels of all that the set names.
pub(crate) fn wheels(
    builder: &Arc<Builder>,
    errand: &Errand,
    set: &DependencySet,
    work: &Path,
) -> Result<Elsewheres, Error> {
    let mut found = Elsewheres::new();
    for path in &set.paths {
        let number = found.len();
        let real = builder.context().project.local(path)?;
        let one = if is_wheel(&real) {
            let name = real.file_name().unwrap_or_default().to_string_lossy();
            (built_place(number, &name), real)
        } else {
            let source = local(builder, path, "", real, &folder(work, "local")?.join(number.to_string()))?;
            built(builder, errand, &source, number)?
        };
        found.insert(key(Elsewhere::Path(path)), one);
    }
    for url in &set.repositories {
        let number = found.len();
        let source = git::source(builder, url, &folder(work, &format!("git/{number}"))?)?;
        found.insert(key(Elsewhere::Repository(url)), built(builder, errand, &source, number)?);
    }
    Ok(found)
}

pub(crate) fn is_wheel(path: &Path) -> bool {
    path.is_file() && path.extension().is_some_and(|extension| extension == "whl")
}

fn built(
    builder: &Arc<Builder>,
    errand: &Errand,
    source: &Source,
    number: usize,
) -> Result<(String, PathBuf), Error> {
    let wheel = noted(builder, errand, source)?;
    Ok((built_place(number, &builder.shown_as(&wheel)), wheel.path().to_owned()))
}

/// The wheel of a source, which is written down.
pub(crate) fn noted(builder: &Arc<Builder>, errand: &Errand, source: &Source) -> Result<Arc<Wheel>, Error> {
    let built = builder.wheel(errand, source)?;
    let wheel = Arc::clone(&built.wheel);
    errand.outcome().built.push(built);
    Ok(wheel)
}

/// The wheel of a project or an archive that a lock names.
pub(crate) fn project(
    builder: &Arc<Builder>,
    errand: &Errand,
    (path, subdirectory): (&str, &str),
    real: PathBuf,
    work: &Path,
) -> Result<Arc<Wheel>, Error> {
    noted(builder, errand, &local(builder, path, subdirectory, real, work)?)
}

/// The wheel of a repository that a lock names.
pub(crate) fn repository(
    builder: &Arc<Builder>,
    errand: &Errand,
    url: &Hidden,
    work: &Path,
) -> Result<Arc<Wheel>, Error> {
    let built = builder.commit(errand, url, work)?;
    let wheel = Arc::clone(&built.wheel);
    errand.outcome().built.push(built);
    Ok(wheel)
}

/// A local project or archive. Folders are copied, because links in them are followed here, and lead nowhere inside.
fn local(
    builder: &Builder,
    path: &str,
    subdirectory: &str,
    real: PathBuf,
    copy: &Path,
) -> Result<Source, Error> {
    let (name, subdirectory) = (path.to_owned(), subdirectory.to_owned());
    let made = |sha256| Made::Path { path: path.to_owned(), sha256 };
    if real.is_file() {
        let sha256 = hex::encode(hashed(&real)?.0);
        let made = made(Some(sha256.clone()));
        return Ok(Source { name, path: real, sha256, subdirectory, version: None, made });
    }
    let exclude = [builder.context().options.destination.folder().to_owned()];
    let sha256 = copied(&real, path, copy, &exclude)?;
    let made = made(None);
    Ok(Source { name, path: copy.to_owned(), sha256, subdirectory, version: None, made })
}

/// The SHA-256 of a file, and its size.
fn hashed(path: &Path) -> Result<([u8; 32], u64), Error> {
    let (mut file, mut hash, mut size) = (fs_err::File::open(path)?, Sha256::new(), 0);
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((hash.finalize().into(), size));
        }
        hash.update(&buffer[..count]);
        size += count as u64;
    }
}

/// Copies a folder, and says what it holds: names, contents, and what may be executed.
pub(super) fn copied(from: &Path, name: &str, to: &Path, exclude: &[PathBuf]) -> Result<String, Error> {
    let mut files = source::walk(from, name, exclude)?.files;
    files.sort_by(|left, right| left.path.cmp(&right.path));
    fs_err::create_dir_all(to)?;
    let mut all = Sha256::new();
    for one in files {
        let target = to.join(&one.path);
        fs_err::create_dir_all(target.parent().unwrap_or(to))?;
        fs_err::copy(&one.location, &target)?;
        // Backends put modes into wheels, and whose umask it was is nobody's business.
        let mode = if one.executable { 0o755 } else { 0o644 };
        fs_err::set_permissions(&target, Permissions::from_mode(mode))?;
        let (hash, size) = hashed(&target)?;
        for part in [&one.path.len().to_le_bytes()[..], one.path.as_bytes(), &size.to_le_bytes(), &hash] {
            all.update(part);
        }
        all.update([u8::from(one.executable)]);
    }
    Ok(hex::encode(all.finalize()))
}
