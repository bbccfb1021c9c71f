//! The recipes under `images/standin`: reading them, checking them, and one digest over all that is
//! in them. What a recipe says is done elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::Result;

/// Changes whenever the same recipe would give other bytes, so that kept images are made anew.
const ASSEMBLER: &str = "2";

/// The runtimes that have a stand-in.
pub(crate) const RUNTIMES: [&str; 5] =
    ["python3.11", "python3.9", "python3.13", "build-python3.11", "python3.11-arm64"];

/// A CPU that stand-ins are for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Architecture {
    #[default]
    Amd64,
    Arm64,
}

impl Architecture {
    /// Its name with Debian, and in images.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Its name in Debian's paths.
    fn triplet(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }
}

/// One stand-in image as its recipe describes it, with `{python}` and `{triplet}` filled in everywhere.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) runtime: String,
    pub(crate) python: String,
    pub(crate) architecture: Architecture,
    pub(crate) suite: String,
    pub(crate) packages: Vec<String>,
    pub(crate) left_out: Vec<String>,
    pub(crate) drop: Vec<String>,
    pub(crate) moves: Vec<(String, String)>,
    pub(crate) edits: Vec<Edit>,
    pub(crate) interpreter_wheels: Vec<String>,
    pub(crate) wheels_below: String,
    pub(crate) requirements: PathBuf,
    pub(crate) pins: Vec<Pin>,
    pub(crate) package_manager: Option<PackageManager>,
    pub(crate) config: Config,
    pub(crate) layers: Vec<Layer>,
    /// SHA-256 over everything the image is made from, packages and wheels aside.
    pub(crate) digest: String,
}

/// What the image tells whoever runs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) env: Vec<String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) working_dir: String,
}

/// A change to the text of one file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    pub(crate) path: String,
    pub(crate) from: String,
    /// Where the part to replace ends, itself not replaced; without it, `from` alone is replaced.
    pub(crate) until: Option<String>,
    pub(crate) to: String,
    /// Every occurrence, instead of the only one.
    #[serde(default)]
    pub(crate) all: bool,
}

/// What fills a layer before its own entries.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    System,
    Interpreter,
    Runtime,
}

/// One layer of the image.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) from: Option<Source>,
    pub(crate) entries: Vec<Entry>,
}

/// One path that a recipe puts into a layer.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) mode: Option<u32>,
    pub(crate) content: Content,
}

/// What is at that path.
#[derive(Debug)]
pub(crate) enum Content {
    Text(String),
    Symlink(String),
    Hardlink(String),
    Directory,
    /// The path is gone from this layer on.
    Whiteout,
    /// Nothing that lower layers have in this directory is seen from this layer on.
    Opaque,
}

/// One file of a package index, by version and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
}

/// `common.toml` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Common {
    packages: Vec<String>,
    left_out: Vec<String>,
    interpreter_wheels: Vec<String>,
    drop: Vec<String>,
    #[serde(rename = "move")]
    moves: Vec<(String, String)>,
    config: Config,
    layers: Vec<WrittenLayer>,
}

/// A recipe that is another one but for what stands here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Variant {
    like: String,
    #[serde(default)]
    architecture: Architecture,
    /// Further ones.
    #[serde(default)]
    packages: Vec<String>,
    /// The only ones of the other's.
    wheels: Option<Vec<String>>,
    /// Of the system layer.
    #[serde(default)]
    entries: Vec<WrittenEntry>,
    package_manager: Option<PackageManager>,
}

/// What the image's package manager knows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackageManager {
    /// Packages that it does not know of, though their files are there.
    pub(crate) unrecorded: Vec<String>,
    /// Packages that are left out of other images.
    not_left_out: Vec<String>,
}

impl Variant {
    /// What makes no difference.
    fn none_of(runtime: &str) -> Self {
        Self {
            like: runtime.to_owned(),
            architecture: Architecture::default(),
            packages: Vec::new(),
            wheels: None,
            entries: Vec::new(),
            package_manager: None,
        }
    }
}

/// `python3.X.toml` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    suite: String,
    python: String,
    packages: Vec<String>,
    wheels_below: String,
    edits: Vec<Edit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLayer {
    name: String,
    from: Option<Source>,
    #[serde(default)]
    entries: Vec<WrittenEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenEntry {
    path: String,
    mode: Option<u32>,
    text: Option<String>,
    file: Option<String>,
    symlink: Option<String>,
    hardlink: Option<String>,
    #[serde(default)]
    directory: bool,
    #[serde(default)]
    whiteout: bool,
    #[serde(default)]
    opaque: bool,
}

impl Recipe {
    /// Reads the recipe for `runtime` from the folder of recipes.
    pub(crate) fn read(folder: &Path, runtime: &str) -> Result<Self> {
        let mut files = Files::new(folder);
        let mut common: Common = files.toml("common.toml")?;
        let name = format!("{runtime}.toml");
        let variant = if files.text(&name)?.contains("\nlike = ") {
            files.toml(&name)?
        } else {
            Variant::none_of(runtime)
        };
        let own: Own = files.toml(&format!("{}.toml", variant.like))?;
        let requirements = format!("{}.requirements.txt", variant.like);
        let mut pins = parse_pins(&files.text(&requirements)?)
            .map_err(|error| format!("{}: {error}", folder.join(&requirements).display()))?;
        pins.retain(|pin| variant.wheels.as_ref().is_none_or(|wheels| wheels.contains(&pin.name)));
        let triplet = variant.architecture.triplet();
        let fill = |text: &str| text.replace("{python}", &own.python).replace("{triplet}", triplet);
        let mut package_manager = variant.package_manager;
        if let Some(manager) = &mut package_manager {
            common.left_out.retain(|package| !manager.not_left_out.contains(package));
            manager.unrecorded = manager.unrecorded.iter().map(|name| fill(name)).collect();
        }
        if let Some(system) = common.layers.iter_mut().find(|layer| layer.from == Some(Source::System)) {
            system.entries.extend(variant.entries);
        }
        let fill_all = |texts: &[String]| texts.iter().map(|text| fill(text)).collect::<Vec<_>>();
        let mut layers = Vec::new();
        for layer in common.layers {
            let mut entries = Vec::new();
            for entry in layer.entries {
                let path = entry.path.clone();
                entries.push(
                    resolve(entry, &mut files, &fill)
                        .map_err(|error| format!("common.toml: {path}: {error}"))?,
                );
            }
            layers.push(Layer { name: layer.name, from: layer.from, entries });
        }
        let edits = own.edits.into_iter().map(|edit| Edit { path: fill(&edit.path), ..edit }).collect();
        Ok(Self {
            runtime: runtime.to_owned(),
            architecture: variant.architecture,
            suite: own.suite,
            packages: fill_all(&[common.packages, own.packages, variant.packages].concat()),
            left_out: common.left_out,
            drop: fill_all(&common.drop),
            moves: common.moves.iter().map(|(from, to)| (fill(from), fill(to))).collect(),
            edits,
            interpreter_wheels: common.interpreter_wheels,
            wheels_below: fill(&own.wheels_below),
            requirements: folder.join(&requirements),
            pins,
            package_manager,
            config: common.config,
            layers,
            digest: files.digest(),
            python: own.python,
        })
    }

    /// The name of the folder with its packages.
    pub(crate) fn packages_folder(&self) -> String {
        match self.architecture {
            Architecture::Amd64 => self.suite.clone(),
            Architecture::Arm64 => format!("{}-arm64", self.suite),
        }
    }

    /// Where the interpreter looks for installed distributions.
    pub(crate) fn site_packages(&self) -> String {
        format!("var/lang/lib/python{}/site-packages", self.python)
    }
}

/// The entry as the image will have it; exactly one kind of content must be given.
fn resolve(entry: WrittenEntry, files: &mut Files<'_>, fill: &dyn Fn(&str) -> String) -> Result<Entry> {
    let mut kinds = Vec::new();
    if let Some(text) = entry.text {
        kinds.push(Content::Text(text));
    }
    if let Some(name) = entry.file {
        kinds.push(Content::Text(fill(&files.text(&name)?)));
    }
    if let Some(target) = entry.symlink {
        kinds.push(Content::Symlink(fill(&target)));
    }
    if let Some(target) = entry.hardlink {
        kinds.push(Content::Hardlink(fill(&target)));
    }
    kinds.extend(entry.directory.then_some(Content::Directory));
    kinds.extend(entry.whiteout.then_some(Content::Whiteout));
    kinds.extend(entry.opaque.then_some(Content::Opaque));
    match <[Content; 1]>::try_from(kinds) {
        Ok([content]) => Ok(Entry { path: fill(&entry.path), mode: entry.mode, content }),
        Err(kinds) => Err(format!("one kind of content is needed, {} are given", kinds.len()).into()),
    }
}

/// The files of a recipe; every one that is read is part of the recipe's digest.
struct Files<'folder> {
    folder: &'folder Path,
    read: BTreeMap<String, String>,
}

impl<'folder> Files<'folder> {
    fn new(folder: &'folder Path) -> Self {
        Self { folder, read: BTreeMap::new() }
    }

    fn text(&mut self, name: &str) -> Result<String> {
        let text = fs_err::read_to_string(self.folder.join(name))?;
        self.read.insert(name.to_owned(), text.clone());
        Ok(text)
    }

    fn toml<T: for<'de> Deserialize<'de>>(&mut self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", self.folder.join(name).display()).into())
    }

    fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(ASSEMBLER);
        for (name, text) in &self.read {
            // Lengths keep two files from being taken for one.
            hasher.update(format!("\n{name} {}\n", text.len()));
            hasher.update(text);
        }
        hex::encode(hasher.finalize())
    }
}

/// Reads a requirements file in which every line is `name==version --hash=sha256:…`.
pub(crate) fn parse_pins(text: &str) -> Result<Vec<Pin>> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| parse_pin(line).ok_or_else(|| format!("not a pin with one hash: {line}").into()))
        .collect()
}

fn parse_pin(line: &str) -> Option<Pin> {
    let mut words = line.split_whitespace();
    let (name, version) = words.next()?.split_once("==")?;
    let sha256 = words.next()?.strip_prefix("--hash=sha256:")?;
    let whole =
        words.next().is_none() && sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| Pin { name: name.to_owned(), version: version.to_owned(), sha256: sha256.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::workspace;

    #[test]
    fn every_recipe_parses_and_leaves_no_placeholder() {
        for runtime in RUNTIMES {
            let recipe = Recipe::read(&workspace::standin_recipes(), runtime).unwrap();
            assert!(runtime.contains(&format!("python{}", recipe.python)));
            assert!(recipe.pins.iter().any(|pin| pin.name == "pip"));
            assert_eq!(recipe.layers.len(), 6);
            let shown = format!("{recipe:?}");
            assert!(!shown.contains("{python}") && !shown.contains("{triplet}"), "{runtime}");
        }
    }

    #[test]
    fn every_recipe_has_each_thing_that_a_pull_must_survive() {
        let recipe = Recipe::read(&workspace::standin_recipes(), "python3.11").unwrap();
        let entries: Vec<&Entry> = recipe.layers.iter().flat_map(|layer| &layer.entries).collect();
        let has = |test: &dyn Fn(&Entry) -> bool| entries.iter().any(|entry| test(entry));
        assert!(has(&|entry| matches!(entry.content, Content::Whiteout)));
        assert!(has(&|entry| matches!(entry.content, Content::Opaque)));
        assert!(has(&|entry| matches!(entry.content, Content::Hardlink(_))));
        assert!(has(&|entry| matches!(&entry.content, Content::Symlink(target) if target.starts_with('/'))));
        assert!(has(&|entry| entry.mode.is_some_and(|mode| mode & 0o4000 != 0)));
        assert!(has(&|entry| !entry.path.is_ascii()));
        assert!(has(&|entry| entry.path.len() > 100));
    }

    #[test]
    fn a_pin_needs_a_version_and_exactly_one_hash() {
        let hash = "0".repeat(64);
        let pins = parse_pins(&format!("# why\nsix==1.17.0 \\\n    --hash=sha256:{hash}\n")).unwrap();
        assert_eq!(pins, [Pin { name: "six".into(), version: "1.17.0".into(), sha256: hash.clone() }]);
        for bad in [
            "six".to_owned(),
            "six==1".into(),
            format!("six>=1 --hash=sha256:{hash}"),
            "six==1 --hash=sha256:12".into(),
        ] {
            assert!(parse_pins(&bad).is_err(), "{bad}");
        }
        assert!(parse_pins(&format!("six==1 --hash=sha256:{hash} --hash=sha256:{hash}")).is_err());
    }

    #[test]
    fn the_digest_covers_every_file_of_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs_err::read_dir(workspace::standin_recipes()).unwrap() {
            let path = entry.unwrap().path();
            fs_err::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        let digest = || Recipe::read(folder.path(), "python3.11").unwrap().digest;
        let own = ["common.toml", "python3.11.toml", "python3.11.requirements.txt"];
        let texts = ["bootstrap", "lambda-entrypoint.sh", "pip"];
        for name in own.into_iter().chain(texts) {
            let before = digest();
            let mut file = fs_err::OpenOptions::new().append(true).open(folder.path().join(name)).unwrap();
            file.write_all(b"# another line\n").unwrap();
            assert_ne!(digest(), before, "{name}");
        }
        let before = digest();
        fs_err::write(folder.path().join("python3.9.toml"), "").unwrap();
        assert_eq!(digest(), before, "another runtime's recipe");
    }
}
