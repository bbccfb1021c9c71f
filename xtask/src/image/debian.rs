//! Debian packages, without root: fetched with apt in folders of its own, signatures verified, and
//! read into a tree without running any of their scripts.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tar::{Archive, EntryType};

use super::database;
use super::recipe::{Architecture, Recipe};
use super::tree::{Node, Tree, is_below};
use crate::{Result, process};

/// What every package of these images was signed by.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where apt reads what its source is.
const SOURCE: &str = "sources/standin.sources";

/// Names a Debian mirror, for hosts that know none.
const MIRROR_VARIABLE: &str = "LBX_DEBIAN_MIRROR";

/// Programs that carry the address of Debian's default mirror, on hosts that aren't Debian.
const KNOW_A_MIRROR: [&str; 3] =
    ["/usr/share/debootstrap/scripts/debian-common", "/usr/sbin/debootstrap", "/usr/bin/mmdebstrap"];

/// Folders that are links to the folder of the same name below `usr` in every image.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// One package at one version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: String,
}

impl Package {
    /// The name that apt gives the file.
    fn file_name(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version.replace(':', "%3a"), self.architecture)
    }
}

/// apt with every folder of its own below one of ours.
pub(crate) struct Apt {
    folder: PathBuf,
    options: PathBuf,
    offline: bool,
}

impl Apt {
    /// Sets apt up for one suite and fetches the list of its packages.
    pub(crate) fn open(folder: &Path, suite: &str, architecture: Architecture) -> Result<Self> {
        let apt = Self::configure(folder, architecture, false)?;
        let source = format!(
            "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\nArchitectures: {}\nSigned-By: {KEYRING}\n",
            mirror()?,
            architecture.name(),
        );
        fs_err::write(folder.join(SOURCE), source)?;
        process::output(apt.get().arg("update"))?;
        Ok(apt)
    }

    /// Sets apt up with what is in the folder, which may be a copy of the one that was opened. Nothing is
    /// fetched then, and what is not there is an error.
    pub(crate) fn reopen(folder: &Path, architecture: Architecture) -> Result<Self> {
        if !folder.join(SOURCE).exists() {
            return Err(format!("{}: no packages were fetched to there", folder.display()).into());
        }
        Self::configure(folder, architecture, true)
    }

    /// Makes the folders and writes the configuration, which holds their place.
    fn configure(folder: &Path, architecture: Architecture, offline: bool) -> Result<Self> {
        for part in ["sources", "state/lists/partial", "cache/archives/partial"] {
            fs_err::create_dir_all(folder.join(part))?;
        }
        fs_err::write(folder.join("state/status"), "")?;
        let options = folder.join("apt.conf");
        fs_err::write(&options, apt_options(folder, architecture))?;
        Ok(Self { folder: folder.to_path_buf(), options, offline })
    }

    /// Fetches the packages with all that they depend on, unless that was done before, and says which those are.
    pub(crate) fn download(&self, packages: &[String]) -> Result<Vec<Package>> {
        let mut found = self.plan(packages)?;
        found.sort();
        if !self.offline {
            process::output(self.get().args(["--yes", "--download-only", "install"]).args(packages))?;
        } else if let Some(missing) =
            found.iter().map(|package| self.archive(package)).find(|path| !path.exists())
        {
            return Err(format!("{}: not fetched before", missing.display()).into());
        }
        Ok(found)
    }

    /// The packages that would be fetched.
    pub(crate) fn plan(&self, packages: &[String]) -> Result<Vec<Package>> {
        Ok(parse_plan(&process::text(self.get().args(["--simulate", "install"]).args(packages))?))
    }

    /// Fetches one package without what it depends on, and returns its files as a tar archive.
    pub(crate) fn files_of(&self, package: &Package) -> Result<Vec<u8>> {
        let archives = self.folder.join("cache/archives");
        process::output(self.get().args(["download", &package.name]).current_dir(archives))?;
        process::output(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(self.archive(package)))
    }

    /// Adds the package's files to the tree, below `usr` where Debian has merged folders.
    pub(crate) fn unpack(&self, package: &Package, tree: &mut Tree) -> Result<()> {
        let path = self.archive(package);
        let bytes = self.archive_of(package)?;
        add_archive(&bytes, tree).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// The package's files, as a tar archive.
    pub(crate) fn archive_of(&self, package: &Package) -> Result<Vec<u8>> {
        process::output(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(self.archive(package)))
    }

    /// What the package says of itself, as a tar archive.
    pub(crate) fn control_of(&self, package: &Package) -> Result<Vec<u8>> {
        process::output(Command::new("dpkg-deb").arg("--ctrl-tarfile").arg(self.archive(package)))
    }

    /// Where the packages come from, in apt's words.
    pub(crate) fn source(&self) -> Result<Vec<u8>> {
        Ok(fs_err::read(self.folder.join(SOURCE))?)
    }

    /// Where apt puts the package.
    fn archive(&self, package: &Package) -> PathBuf {
        self.folder.join("cache/archives").join(package.file_name())
    }

    fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command
            .arg("--config-file")
            .arg(&self.options)
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// The host's own configuration stays in force but for this: its proxies are needed to get anywhere,
/// while its hooks and its folders are root's.
fn apt_options(folder: &Path, architecture: Architecture) -> String {
    let (folder, architecture) = (folder.display(), architecture.name());
    format!(
        r#"#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "{folder}/sources";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
"#
    )
}

/// Where to get Debian packages: what the user says, else what the host's apt uses, else what the
/// host's bootstrap tools know.
#[expect(clippy::disallowed_methods, reason = "a development tool reads its environment where it needs it")]
fn mirror() -> Result<String> {
    if let Ok(mirror) = std::env::var(MIRROR_VARIABLE) {
        return Ok(mirror);
    }
    let format = "$(ORIGIN)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)";
    let targets = process::text(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    let release = fs_err::read_to_string("/etc/os-release")?;
    if let Some(mirror) = mirror_of_targets(&targets, &release) {
        return Ok(mirror);
    }
    for path in KNOW_A_MIRROR {
        if let Some(mirror) = fs_err::read_to_string(path).ok().as_deref().and_then(mirror_in_text) {
            return Ok(mirror);
        }
    }
    Err(format!(
        "no Debian mirror is known to this host\nhint: install debootstrap, or set {MIRROR_VARIABLE}"
    )
    .into())
}

/// The mirror of the host's own release, when the host is Debian.
fn mirror_of_targets(targets: &str, os_release: &str) -> Option<String> {
    let value = |key: &str| {
        os_release.lines().find_map(|line| line.strip_prefix(key)).map(|text| text.trim_matches('"'))
    };
    if value("ID=") != Some("debian") {
        return None;
    }
    let codename = value("VERSION_CODENAME=");
    targets.lines().find_map(|line| {
        let fields: Vec<&str> = line.split('|').collect();
        let [origin, release, "main", uri] = fields[..] else { return None };
        let own = Some(release) == codename || ["testing", "sid", "unstable", "stable"].contains(&release);
        (own && ["Debian", ""].contains(&origin)).then(|| uri.trim_end_matches('/').to_owned())
    })
}

/// The first address of a Debian mirror in the text of a program.
fn mirror_in_text(text: &str) -> Option<String> {
    let mut words =
        text.split(|character: char| character.is_whitespace() || "\"'`;()<>".contains(character));
    words
        .find(|word| {
            (word.starts_with("http://") || word.starts_with("https://")) && word.ends_with("/debian")
        })
        .map(str::to_owned)
}

/// What apt would install: lines such as `Inst bash (5.2-1 Debian:12/stable [amd64])`.
fn parse_plan(plan: &str) -> Vec<Package> {
    plan.lines().filter_map(parse_plan_line).collect()
}

fn parse_plan_line(line: &str) -> Option<Package> {
    let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
    let version = rest.trim_start_matches('(').split(' ').next()?;
    // What follows the parenthesis is about other packages.
    let architecture = rest.split(')').next()?.rsplit_once('[')?.1.trim_end_matches(']');
    Some(Package {
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: architecture.to_owned(),
    })
}

/// Adds a package's archive to the tree.
fn add_archive(bytes: &[u8], tree: &mut Tree) -> Result<()> {
    for entry in Archive::new(bytes).entries()? {
        let mut entry = entry?;
        let path = merged(&String::from_utf8(entry.path_bytes().into_owned())?);
        if path.is_empty() || MERGED.contains(&path.as_str()) {
            continue;
        }
        let mode = entry.header().mode()? & 0o7777;
        let link = entry
            .link_name_bytes()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        match entry.header().entry_type() {
            EntryType::Directory => tree.add_directory(&path, mode),
            EntryType::Symlink => tree.add_symlink(&path, &link),
            EntryType::Link => tree.add_hardlink(&path, &merged(&link))?,
            EntryType::Regular => {
                let mut data = Vec::new();
                entry.read_to_end(&mut data)?;
                tree.add_file(&path, mode, data);
            }
            kind => return Err(format!("{path}: an entry of the kind {kind:?}").into()),
        }
    }
    Ok(())
}

/// The path without `./`, and below `usr` if its folder is a link to there.
fn merged(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_matches('/');
    let top = path.split('/').next().unwrap_or_default();
    if path.contains('/') && MERGED.contains(&top) { format!("usr/{path}") } else { path.to_owned() }
}

/// The tree of all packages that the recipe wants, at Lambda's places.
pub(crate) fn tree(apt: &Apt, packages: &[Package], recipe: &Recipe) -> Result<Tree> {
    let mut tree = Tree::default();
    for package in packages {
        apt.unpack(package, &mut tree)?;
    }
    tree.remove_where(|path| recipe.drop.iter().any(|top| is_below(path, top)));
    for (from, to) in &recipe.moves {
        tree.rename(from, to)?;
    }
    for edit in &recipe.edits {
        tree.edit(edit)?;
    }
    if let Some(manager) = &recipe.package_manager {
        database::add(apt, packages, manager, &mut tree)?;
    }
    let bundle = certificates(&tree);
    tree.add_file("etc/ssl/certs/ca-certificates.crt", 0o644, bundle);
    Ok(tree)
}

/// All certificates in one file, as the package's own script would make it.
fn certificates(tree: &Tree) -> Arc<[u8]> {
    let mut bundle = Vec::new();
    for (path, node) in tree.iter() {
        if let (true, Node::File { data, .. }) = (is_below(path, "usr/share/ca-certificates"), node) {
            bundle.extend_from_slice(data);
            if !data.ends_with(b"\n") {
                bundle.push(b'\n');
            }
        }
    }
    bundle.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_of_apt_is_read_with_epochs() {
        let plan = "Reading package lists...\nInst gmp (2:6.2-1 Debian:12/stable [amd64])\nConf gmp (2:6.2-1 x [amd64])\n\
                    Inst tz (2026 Debian:12/stable, Other:1 [all]) [gmp:amd64 ]\n";
        let names: Vec<String> = parse_plan(plan).iter().map(Package::file_name).collect();
        assert_eq!(names, ["gmp_2%3a6.2-1_amd64.deb", "tz_2026_all.deb"]);
    }

    #[test]
    fn folders_that_are_links_in_the_image_are_merged() {
        assert_eq!(merged("./bin/bash"), "usr/bin/bash");
        assert_eq!(merged("./lib64/ld.so"), "usr/lib64/ld.so");
        assert_eq!(merged("./bin/"), "bin");
        assert_eq!(merged("./library/x"), "library/x");
        assert_eq!(merged("./"), "");
    }

    #[test]
    fn the_mirror_is_the_one_of_the_hosts_own_release() {
        let targets = "Debian|trixie-security|main|http://s.example/security/\nDebian|trixie|main|http://m.example/debian/\n";
        let debian = "ID=debian\nVERSION_CODENAME=trixie\n";
        assert_eq!(mirror_of_targets(targets, debian).as_deref(), Some("http://m.example/debian"));
        assert_eq!(mirror_of_targets(targets, "ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
    }

    #[test]
    fn a_mirror_is_found_in_the_text_of_a_bootstrap_tool() {
        let script =
            "case $ID in\n  debian) DEF_MIRROR=\"http://m.example/debian\" ;;\n  x) y=http://m.example/other";
        assert_eq!(
            mirror_in_text(&script.replace("DEF_MIRROR=", "default_mirror ")).as_deref(),
            Some("http://m.example/debian")
        );
        assert_eq!(mirror_in_text(script).as_deref(), Some("http://m.example/debian"));
        assert_eq!(mirror_in_text("nothing here"), None);
    }
}
