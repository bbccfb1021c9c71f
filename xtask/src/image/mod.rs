//! `cargo xtask image`: stand-ins for the Lambda images, from the recipes under `images/standin`.
//!
//! This file decides whether there is anything to do and puts the parts together; each part has a
//! module: packages, wheels, compiled modules, layers, layout.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;

use self::debian::{Apt, Package};
use self::layout::NamedLayer;
use self::recipe::{Architecture, RUNTIMES, Recipe, Source};
use self::tree::Tree;
use self::wheels::Wheel;
pub(crate) use self::wheels::python_with_pip;
use crate::{Result, provision, workspace};

mod bytecode;
mod database;
pub(crate) mod debian;
mod layer;
mod layout;
pub(crate) mod recipe;
mod tree;
mod wheels;

/// How folders begin that hold an image in the making.
const FRESH: &str = ".fresh-";

/// The label that says which packages an image was made from.
const PACKAGES_LABEL: &str = "lbx.standin.packages";

/// What to assemble, and where.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The image to make, by the runtime that it stands in for, or `all`
    #[arg(long, default_value = "all", value_parser = RUNTIMES.into_iter().chain(["all"]).collect::<Vec<_>>())]
    runtime: String,
    /// Where to keep the images, each in a folder named after its runtime, instead of `standin` where cargo builds
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Look for newer packages and assemble again, even if the kept image fits its recipe
    #[arg(long)]
    force: bool,
    /// Assemble again from the packages that were fetched before, without a network
    #[arg(long, conflicts_with = "force")]
    offline: bool,
}

/// Which image is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The kept one if it fits its recipe, else one from the newest packages.
    Kept,
    /// A new one from the newest packages.
    Newest,
    /// A new one from the packages that were fetched before.
    Offline,
}

/// What an image is assembled from.
struct Inputs {
    apt: Apt,
    packages: Vec<Package>,
    wheels: Vec<Wheel>,
}

/// What a kept image was made from; written last, so that an image without it counts as absent.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Stamp {
    recipe: String,
    manifest: String,
    blobs: Vec<(String, u64)>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    // apt takes a relative path for one below its own folders.
    let out = match &arguments.out {
        Some(out) => std::path::absolute(out)?,
        None => workspace::standin_images()?,
    };
    let want = match (arguments.force, arguments.offline) {
        (true, _) => Want::Newest,
        (_, true) => Want::Offline,
        _ => Want::Kept,
    };
    for runtime in RUNTIMES {
        if arguments.runtime == runtime || arguments.runtime == "all" {
            let folder = ensure(runtime, &out, want)?;
            println!("{}", folder.display());
        }
    }
    Ok(())
}

/// The folder with the stand-in for the runtime, in the OCI layout, assembled if need be below `out`,
/// which is an absolute path.
pub(crate) fn ensure(runtime: &str, out: &Path, want: Want) -> Result<PathBuf> {
    let recipe = Recipe::read(&workspace::standin_recipes(), runtime)?;
    let (folder, stamp_path) = (out.join(runtime), out.join(format!("{runtime}.stamp.json")));
    if want == Want::Kept && is_valid(&folder, &stamp_path, &recipe.digest) {
        return Ok(folder);
    }
    fs_err::create_dir_all(out)?;
    let _lock = lock(out)?;
    // Someone else may have assembled it while this process waited.
    if want == Want::Kept && is_valid(&folder, &stamp_path, &recipe.digest) {
        return Ok(folder);
    }
    provision::ensure(provision::IMAGE)?;
    let start = Instant::now();
    let stamp = assemble(&recipe, out, want, &folder, &stamp_path)?;
    let stored: u64 = stamp.blobs.iter().map(|(_, size)| size).sum();
    eprintln!(
        "{runtime}: {}, {} MB in {} layers, {:.1} s",
        stamp.manifest,
        stored / 1_000_000,
        recipe.layers.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(folder)
}

/// The same for the kept image, but what it was made from is there, too: assembled again with
/// `Want::Offline` from a copy of that, the image must be the same.
pub(crate) fn ensure_repeatable(runtime: &str, out: &Path) -> Result<PathBuf> {
    let folder = ensure(runtime, out, Want::Kept)?;
    let recipe = Recipe::read(&workspace::standin_recipes(), runtime)?;
    match lacks(&recipe, out, &folder)? {
        None => Ok(folder),
        Some(reason) => {
            eprintln!("{runtime}: what it was made from is not kept, so it is made anew: {reason}");
            ensure(runtime, out, Want::Newest)
        }
    }
}

/// Why what was fetched is not what the image was made from, if so: it was removed, or looking for newer
/// packages got no further than to their list.
fn lacks(recipe: &Recipe, out: &Path, folder: &Path) -> Result<Option<String>> {
    let _lock = lock(out)?;
    let made_from = layout::labels(folder).unwrap_or_default()[PACKAGES_LABEL].take();
    Ok(match fetch(recipe, out, Want::Offline) {
        Err(error) => Some(error.to_string()),
        Ok(inputs) if listed(&inputs.packages) != made_from => Some("there are other packages".to_owned()),
        Ok(_) => None,
    })
}

/// Holds off every other process that assembles below `out`, for as long as the result is kept.
fn lock(out: &Path) -> Result<fs_err::File> {
    let lock = fs_err::File::create(out.join(".lock"))?;
    lock.file().lock()?;
    Ok(lock)
}

/// Whether the kept image was made from this recipe and is all there.
fn is_valid(folder: &Path, stamp_path: &Path, recipe: &str) -> bool {
    let text = fs_err::read_to_string(stamp_path).unwrap_or_default();
    let Ok(stamp) = serde_json::from_str::<Stamp>(&text) else { return false };
    let index = fs_err::read_to_string(folder.join("index.json")).unwrap_or_default();
    stamp.recipe == recipe
        && index.contains(&stamp.manifest)
        && stamp.blobs == blobs(folder).unwrap_or_default()
        && folder.join("oci-layout").exists()
}

/// Names and sizes of the blobs in a layout, sorted.
fn blobs(folder: &Path) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder.join("blobs/sha256"))? {
        let entry = entry?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()));
    }
    found.sort();
    Ok(found)
}

/// Gets everything that the recipe names; the caller holds the lock.
fn fetch(recipe: &Recipe, out: &Path, want: Want) -> Result<Inputs> {
    let folder = out.join("packages").join(recipe.packages_folder());
    let offline = want == Want::Offline;
    let architecture = recipe.architecture;
    let apt = if offline {
        Apt::reopen(&folder, architecture)?
    } else {
        Apt::open(&folder, &recipe.suite, architecture)?
    };
    let mut packages = apt.download(&recipe.packages)?;
    packages.retain(|package| !recipe.left_out.contains(&package.name));
    let wheels = wheels::download(&out.join("wheels"), recipe, offline)?;
    Ok(Inputs { apt, packages, wheels })
}

/// Makes the image beside its place and moves it there when it is whole.
fn assemble(recipe: &Recipe, out: &Path, want: Want, folder: &Path, stamp_path: &Path) -> Result<Stamp> {
    remove_leftovers(out)?;
    if want != Want::Offline {
        eprintln!("{}: fetching packages of Debian {}", recipe.runtime, recipe.suite);
    }
    let Inputs { apt, packages, wheels } = fetch(recipe, out, want)?;
    eprintln!("{}: assembling {} packages and {} wheels", recipe.runtime, packages.len(), wheels.len());
    let mut tree = debian::tree(&apt, &packages, recipe)?;
    for wheel in &wheels {
        let below = if recipe.interpreter_wheels.contains(&wheel.pin.name) {
            recipe.site_packages()
        } else {
            recipe.wheels_below.clone()
        };
        wheels::install(wheel, &below, &mut tree)?;
    }
    let fresh = tempfile::Builder::new().prefix(FRESH).tempdir_in(out)?;
    if recipe.architecture == Architecture::Amd64 {
        bytecode::add(&mut tree, &recipe.python, &fresh.path().join("root"))?;
    }
    let layers = layers(tree, recipe)?;
    let manifest = layout::write(&fresh.path().join("image"), recipe, &layers, &labels(recipe, &packages))?;
    if folder.exists() {
        fs_err::rename(folder, fresh.path().join("old"))?;
    }
    fs_err::rename(fresh.path().join("image"), folder)?;
    let stamp = Stamp { recipe: recipe.digest.clone(), manifest, blobs: blobs(folder)? };
    fs_err::write(stamp_path, serde_json::to_vec_pretty(&stamp)?)?;
    Ok(stamp)
}

/// Removes what a killed process left unfinished; the caller holds the lock, so nobody uses it.
fn remove_leftovers(out: &Path) -> Result<()> {
    for entry in fs_err::read_dir(out)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(FRESH) {
            fs_err::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Cuts the tree into the recipe's layers.
fn layers(mut tree: Tree, recipe: &Recipe) -> Result<Vec<NamedLayer>> {
    let mut interpreter = tree.split_off("var/lang");
    let mut runtime = tree.split_off("var/runtime");
    let mut layers = Vec::new();
    for layer in &recipe.layers {
        let mut content = match layer.from {
            Some(Source::System) => std::mem::take(&mut tree),
            Some(Source::Interpreter) => std::mem::take(&mut interpreter),
            Some(Source::Runtime) => std::mem::take(&mut runtime),
            None => Tree::default(),
        };
        for entry in &layer.entries {
            content.add_entry(entry)?;
        }
        content.complete();
        layers.push(NamedLayer { name: layer.name.clone(), blob: layer::write(&content)? });
    }
    Ok(layers)
}

/// What the image was made from, for whoever inspects it.
fn labels(recipe: &Recipe, packages: &[Package]) -> serde_json::Value {
    let wheels: Vec<String> =
        recipe.pins.iter().map(|pin| format!("{}=={}", pin.name, pin.version)).collect();
    json!({
        "lbx.standin.runtime": recipe.runtime,
        "lbx.standin.recipe": recipe.digest,
        "lbx.standin.suite": recipe.suite,
        PACKAGES_LABEL: listed(packages),
        "lbx.standin.wheels": wheels.join(" "),
    })
}

/// The packages with their versions, as text.
fn listed(packages: &[Package]) -> String {
    let packages: Vec<String> =
        packages.iter().map(|package| format!("{}={}", package.name, package.version)).collect();
    packages.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Tree {
        let mut tree = Tree::default();
        tree.add_file("usr/bin/env", 0o755, *b"env");
        tree.add_file("var/lang/bin/python3.11", 0o755, *b"python");
        tree
    }

    fn written(recipe: &Recipe) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let layers = layers(example(), recipe).unwrap();
        let manifest = layout::write(folder.path(), recipe, &layers, &labels(recipe, &[])).unwrap();
        (folder, manifest)
    }

    #[test]
    fn assembling_twice_gives_the_same_image() {
        let recipe = Recipe::read(&workspace::standin_recipes(), "python3.11").unwrap();
        let ((one, first), (two, second)) = (written(&recipe), written(&recipe));
        assert_eq!(first, second);
        assert_eq!(blobs(one.path()).unwrap(), blobs(two.path()).unwrap());
        assert_eq!(blobs(one.path()).unwrap().len(), 8);
    }

    #[test]
    fn a_kept_image_counts_only_if_whole_and_of_this_recipe() {
        let recipe = Recipe::read(&workspace::standin_recipes(), "python3.11").unwrap();
        let (folder, manifest) = written(&recipe);
        let stamp = Stamp { recipe: "r".into(), manifest, blobs: blobs(folder.path()).unwrap() };
        let stamp_path = folder.path().join("stamp");
        fs_err::write(&stamp_path, serde_json::to_vec(&stamp).unwrap()).unwrap();
        assert!(is_valid(folder.path(), &stamp_path, "r"));
        assert!(!is_valid(folder.path(), &stamp_path, "other"));
        fs_err::remove_file(folder.path().join("blobs/sha256").join(&stamp.blobs[0].0)).unwrap();
        assert!(!is_valid(folder.path(), &stamp_path, "r"));
    }

    #[test]
    fn an_image_says_which_packages_it_was_made_from() {
        let recipe = Recipe::read(&workspace::standin_recipes(), "python3.11").unwrap();
        let (folder, _) = written(&recipe);
        assert_eq!(layout::labels(folder.path()).unwrap()[PACKAGES_LABEL], listed(&[]));
    }

    #[test]
    fn without_a_network_what_was_not_fetched_before_is_missed() {
        let recipe = Recipe::read(&workspace::standin_recipes(), "python3.11").unwrap();
        let (folder, _) = written(&recipe);
        let reason = lacks(&recipe, folder.path(), folder.path()).unwrap().unwrap();
        assert!(reason.ends_with("packages/bookworm: no packages were fetched to there"), "{reason}");
    }
}
