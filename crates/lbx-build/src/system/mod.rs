//! System packages for what is built: the image's own package manager, in a layer above the image.
//!
//! It runs as the root user that it wants to be (`lbx_sandbox::Changes`), reaches mirrors through an outlet and nothing else,
//! and sees nothing of the project. What it leaves is kept by the image and the list; what was built with it is kept by the
//! list, too.

mod tame;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use lbx_image::{Outlet, PullOptions, Scratch};
use lbx_sandbox::{Access, Bind, Changes, Network, Root, Spec};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::base::{self, Base, Output, Serves};
use crate::builder::cache_key;
use crate::cache;
use crate::engine::Context;
use crate::error::{Error, PackagesError};
use crate::event::Event;
use crate::site::Site;

/// Where what is to be known of it is written to, in the sandbox.
const OUT: &str = "/lbx/out";
const SCRIPT: &str = include_str!("install.sh");
/// What is written beside the tree when it is whole.
const RECORD: &str = "packages.json";
/// The most bytes of a list of packages.
const LONGEST_LIST: u64 = 8 << 20;

/// A root with packages, and which ones came into it.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) root: Root,
    /// Versions by name.
    pub(crate) packages: BTreeMap<String, String>,
}

/// What is kept beside the tree.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Whether the tree is a layer, or all of the root.
    layer: bool,
    image: String,
    wanted: Vec<String>,
    manager: String,
    /// What is there that was not, by name.
    installed: BTreeMap<String, String>,
    /// Where it came from.
    hosts: Vec<String>,
}

/// How the root is changed.
enum Way {
    /// By a layer above these.
    Layer(Vec<PathBuf>),
    /// By changing a copy of this tree.
    Copy(PathBuf),
}

/// The root of an image with these packages: kept from before, or made now.
pub(crate) fn install(
    context: &Context,
    (site, base): (&Site, &Base),
    wanted: &[String],
    runtime: &Handle,
) -> Result<Installed, Error> {
    let installation = Installation { site, base, wanted, way: Way::of(site, base, wanted)?, runtime };
    let way = &installation.way;
    let mut parts = vec![SCRIPT, base.image.manifest_digest.as_str(), way.name()];
    parts.extend(wanted.iter().map(String::as_str));
    let key = cache_key(&parts);
    let place = site.store.root().join("packages/v1").join(&key);
    cache::note(site.store.root(), &format!("packages-{key}"));
    if !context.options.rebuild
        && let Some((kept, place)) = newest(&place)
    {
        return Ok(kept.installed(way, &place));
    }
    let image = || site.choice.image.clone();
    if context.options.offline {
        return Err(PackagesError::Offline { packages: wanted.join(" "), image: image() }.into());
    }
    site.tell(Event::PackagesStarted { image: image(), packages: wanted.to_vec() });
    let work = site.store.scratch().map_err(Error::store)?;
    let result = work.path("made");
    let made = installation.make(&result, &work)?;
    let installed = made.installed.iter().map(|(name, version)| format!("{name} {version}")).collect();
    site.tell(Event::PackagesFinished { image: image(), installed, hosts: made.hosts.clone() });
    let place = keep(&result, &place)?;
    Ok(made.installed(way, &place))
}

impl Way {
    fn of(site: &Site, base: &Base, wanted: &[String]) -> Result<Self, Error> {
        let backend = site.isolation.backend;
        if !backend.lends_root() {
            return Err(PackagesError::RootNotLent { packages: wanted.join(" "), backend }.into());
        }
        Ok(match &base.root {
            Root::Layers(layers) => Self::Layer(layers.clone()),
            Root::Tree(tree) => Self::Copy(tree.clone()),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Layer(_) => "layer",
            Self::Copy(_) => "tree",
        }
    }
}

impl Record {
    fn read(place: &Path) -> Option<Self> {
        let record = serde_json::from_slice(&fs_err::read(place.join(RECORD)).ok()?).ok()?;
        place.join("tree").is_dir().then_some(record)
    }

    fn installed(self, way: &Way, place: &Path) -> Installed {
        let tree = place.join("tree");
        let root = match way {
            Way::Layer(layers) => Root::Layers(layers.iter().cloned().chain([tree]).collect()),
            Way::Copy(_) => Root::Tree(tree),
        };
        Installed { root, packages: self.installed }
    }
}

/// What is served to the package manager.
struct Mirrors<'a> {
    outlet: Outlet,
    own: TcpListener,
    runtime: &'a Handle,
}

impl Mirrors<'_> {
    /// Lets a command reach them, and nothing else, where that can be had.
    fn tell(&self, spec: &mut Spec, site: &Site) -> Result<(), Error> {
        let port = self.own.local_addr()?.port();
        let is_apart = site.isolation.claims.network_served;
        spec.network = if is_apart { Network::Served(port) } else { Network::Host };
        let proxy = self.outlet.proxy_url(port);
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ftp_proxy"] {
            spec.env.push((name.to_owned(), proxy.clone()));
        }
        Ok(())
    }
}

impl Serves for Mirrors<'_> {
    fn listen(&self, listener: Option<TcpListener>) -> std::io::Result<()> {
        let _runtime = self.runtime.enter();
        self.outlet.listen(match listener {
            Some(listener) => listener,
            None => self.own.try_clone()?,
        })
    }
}

/// What is to be installed, where, and how.
struct Installation<'a> {
    site: &'a Site,
    base: &'a Base,
    wanted: &'a [String],
    way: Way,
    runtime: &'a Handle,
}

impl Installation<'_> {
    /// Installs, and leaves the tree in `result`, with its record.
    fn make(&self, result: &Path, work: &Scratch) -> Result<Record, Error> {
        let (out, changes, tree) = (work.path("out"), work.path("changes"), result.join("tree"));
        for folder in [result, &out, &changes] {
            fs_err::create_dir_all(folder)?;
        }
        let mirrors = self.mirrors()?;
        let mut spec = spec(self.base, self.wanted, &out);
        (spec.root, spec.changes) = self.root(&tree, &changes)?;
        mirrors.tell(&mut spec, self.site)?;
        let output = base::run(self.site, &spec, Some(&mirrors), &|line| {
            self.site.tell(Event::PackagesLine { line: mirrors.outlet.redact(line) });
        });
        let output = output.map_err(|error| match error {
            // Where there is no shell, there is nothing that it could start either.
            Error::Sandbox(lbx_sandbox::Error::ProgramNotFound { .. }) => self.no_manager(),
            error => error,
        })?;
        let manager = told(&out, "manager")?;
        self.check(&output, &manager, &mirrors)?;
        if spec.changes != Changes::InPlace {
            fs_err::rename(changes.join("upper"), &tree)?;
        }
        tame::tame(&tree)?;
        let record = Record {
            layer: matches!(self.way, Way::Layer(_)),
            image: self.image(),
            wanted: self.wanted.to_vec(),
            manager: manager.trim().to_owned(),
            installed: added(&told(&out, "before")?, &told(&out, "after")?),
            hosts: mirrors.outlet.hosts().into_iter().collect(),
        };
        let text = serde_json::to_vec_pretty(&record).map_err(std::io::Error::from)?;
        fs_err::write(result.join(RECORD), text)?;
        Ok(record)
    }

    fn image(&self) -> String {
        self.site.choice.image.clone()
    }

    fn no_manager(&self) -> Error {
        PackagesError::NoManager { packages: self.wanted.join(" "), image: self.image() }.into()
    }

    fn mirrors(&self) -> Result<Mirrors<'_>, Error> {
        let options = PullOptions {
            proxy: self.site.host.proxy.clone(),
            extra_ca_pem: crate::engine::ca_pem(&self.site.host)?,
            ..PullOptions::new(lbx_image::Platform::linux(self.site.choice.arch.oci()))
        };
        let own = TcpListener::bind("127.0.0.1:0")?;
        Ok(Mirrors { outlet: Outlet::new(&options)?, own, runtime: self.runtime })
    }

    /// What is changed, and what becomes of that.
    fn root(&self, tree: &Path, changes: &Path) -> Result<(Root, Changes), Error> {
        Ok(match &self.way {
            Way::Layer(layers) => (Root::Layers(layers.clone()), Changes::Above(changes.to_owned())),
            Way::Copy(original) => {
                let failed = |source| Error::image(&self.site.choice.image, source);
                lbx_image::copy_tree(original, tree).map_err(failed)?;
                // Directories that their owner may not write to are the root user's, who here has no such right.
                tame::tame(tree)?;
                (Root::Tree(tree.to_owned()), Changes::InPlace)
            }
        })
    }

    /// Whether it went well.
    fn check(&self, output: &Output, manager: &str, mirrors: &Mirrors<'_>) -> Result<(), Error> {
        if manager.is_empty() {
            return Err(self.no_manager());
        }
        if output.ended.success() {
            return Ok(());
        }
        let error = PackagesError::Failed {
            packages: self.wanted.join(" "),
            image: self.image(),
            how: base::how(&output.ended),
            met: output.ended.hint(&output.text, &self.site.limits, None),
            output: mirrors.outlet.redact(&output.text),
            refused: mirrors.outlet.refused(),
        };
        Err(error.into())
    }
}

fn spec(base: &Base, wanted: &[String], out: &Path) -> Spec {
    let script = ["/bin/sh", "-c", SCRIPT, "install", OUT].map(str::to_owned);
    let mut spec = Spec::new(base.root.clone(), script.into_iter().chain(wanted.iter().cloned()));
    (spec.uid, spec.gid, spec.home) = (0, 0, "/root".to_owned());
    spec.tmpfs.retain(|tmpfs| ["/tmp", "/var/tmp", "/run"].contains(&tmpfs.target.as_str()));
    spec.binds.push(Bind { source: out.to_owned(), target: OUT.to_owned(), access: Access::ReadWrite });
    let path = base::environment(&base.image).into_iter().find(|(name, _)| name == "PATH");
    let path = path.map(|(_, path)| path).unwrap_or_default();
    let set = [
        ("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin").as_str()),
        ("HOME", "/root"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("DEBIAN_FRONTEND", "noninteractive"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    spec.env.extend(set);
    spec
}

/// What the script has written; nothing, if it has not.
fn told(out: &Path, name: &str) -> Result<String, Error> {
    use std::io::Read;
    let mut text = Vec::new();
    if let Some(output) = lbx_sandbox::outputs(out, |found| found == name)?.pop() {
        output.file.take(LONGEST_LIST).read_to_end(&mut text)?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// What is there that was not, by name. A package that has several versions has the last one.
fn added(before: &str, after: &str) -> BTreeMap<String, String> {
    let before: BTreeSet<&str> = before.lines().collect();
    let new = after.lines().filter(|line| !before.contains(line));
    new.filter_map(|line| {
        let (name, version) = line.strip_prefix("installed ")?.split_once(' ')?;
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic());
        (plain(name) && plain(version)).then(|| (name.to_owned(), version.to_owned()))
    })
    .collect()
}

/// Where the next one of these is kept. Each has a folder of its own, and no build removes one: another may be
/// building in one before.
fn generations(place: &Path) -> Result<Vec<u32>, Error> {
    let mut all = Vec::new();
    for entry in fs_err::read_dir(place)? {
        all.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    all.sort_unstable();
    Ok(all)
}

/// The last one that is whole.
fn newest(place: &Path) -> Option<(Record, PathBuf)> {
    let all = generations(place).ok()?;
    all.into_iter().rev().find_map(|number| {
        let place = place.join(number.to_string());
        Some((Record::read(&place)?, place))
    })
}

/// The folder of the last one that is whole, of those that are kept for one image and list.
pub(crate) fn newest_of(place: &Path) -> Option<PathBuf> {
    newest(place).map(|(_, place)| place)
}

/// Moves what was made to its place, whole, and returns that.
fn keep(result: &Path, place: &Path) -> Result<PathBuf, Error> {
    fs_err::create_dir_all(place)?;
    loop {
        let all = generations(place)?;
        let next = all.last().map_or(0, |last| last + 1);
        let target = place.join(next.to_string());
        // A folder that is there is not replaced, because it is not empty.
        match fs_err::rename(result, &target) {
            Err(_) if target.exists() => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok(target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_what_was_not_there_before() {
        let before = "installed bash 5.2\ninstalled zlib 1.2\nconfig-files gone 1\n";
        let after = "installed bash 5.2\ninstalled zlib 1.3\ninstalled gcc 12-1\nconfig-files x 1\ninstalled \x1b[2J 1\n";
        let added: Vec<_> = added(before, after).into_iter().collect();
        let expected = [("gcc", "12-1"), ("zlib", "1.3")];
        assert_eq!(added, expected.map(|(name, version)| (name.to_owned(), version.to_owned())));
    }
}
