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
use self::recipe::{RUNTIMES, Recipe, Source};
use self::tree::Tree;
pub(crate) use self::wheels::python_with_pip;
use crate::{Result, provision, workspace};

mod bytecode;
mod debian;
mod layer;
mod layout;
mod recipe;
mod tree;
mod wheels;

/// How folders begin that hold an image in the making.
const FRESH: &str = ".fresh-";

/// What to assemble, and where.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The runtime to make a stand-in for, or `all`
    #[arg(long, default_value = "all", value_parser = ["python3.11", "python3.9", "python3.13", "all"])]
    runtime: String,
    /// Where to keep the images, each in a folder named after its runtime
    #[arg(long, value_name = "DIR", default_value_os_t = workspace::standin_images())]
    out: PathBuf,
    /// Look for newer packages and assemble again, even if the kept image fits its recipe
    #[arg(long)]
    force: bool,
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
    let out = std::path::absolute(&arguments.out)?;
    for runtime in RUNTIMES {
        if arguments.runtime == runtime || arguments.runtime == "all" {
            let folder = ensure(runtime, &out, arguments.force)?;
            println!("{}", folder.display());
        }
    }
    Ok(())
}

/// The folder with the stand-in for the runtime, in the OCI layout, assembled if need be below `out`,
/// which is an absolute path.
pub(crate) fn ensure(runtime: &str, out: &Path, force: bool) -> Result<PathBuf> {
    let recipe = Recipe::read(&workspace::standin_recipes(), runtime)?;
    let (folder, stamp_path) = (out.join(runtime), out.join(format!("{runtime}.stamp.json")));
    if !force && is_valid(&folder, &stamp_path, &recipe.digest) {
        return Ok(folder);
    }
    fs_err::create_dir_all(out)?;
    let lock = fs_err::File::create(out.join(".lock"))?;
    lock.file().lock()?;
    // Someone else may have assembled it while this process waited.
    if !force && is_valid(&folder, &stamp_path, &recipe.digest) {
        return Ok(folder);
    }
    provision::ensure(provision::IMAGE)?;
    let start = Instant::now();
    let stamp = assemble(&recipe, out, &folder, &stamp_path)?;
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

/// Makes the image beside its place and moves it there when it is whole.
fn assemble(recipe: &Recipe, out: &Path, folder: &Path, stamp_path: &Path) -> Result<Stamp> {
    remove_leftovers(out)?;
    eprintln!("{}: fetching packages of Debian {}", recipe.runtime, recipe.suite);
    let apt = Apt::open(&out.join("packages").join(&recipe.suite), &recipe.suite)?;
    let mut packages = apt.download(&recipe.packages)?;
    packages.retain(|package| !recipe.left_out.contains(&package.name));
    let wheels = wheels::download(&out.join("wheels"), recipe)?;
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
    bytecode::add(&mut tree, &recipe.python, &fresh.path().join("root"))?;
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
    let packages: Vec<String> =
        packages.iter().map(|package| format!("{}={}", package.name, package.version)).collect();
    let wheels: Vec<String> =
        recipe.pins.iter().map(|pin| format!("{}=={}", pin.name, pin.version)).collect();
    json!({
        "lbx.standin.runtime": recipe.runtime,
        "lbx.standin.recipe": recipe.digest,
        "lbx.standin.suite": recipe.suite,
        "lbx.standin.packages": packages.join(" "),
        "lbx.standin.wheels": wheels.join(" "),
    })
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
}
