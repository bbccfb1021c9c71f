//! Real wheels for tests and the bench: the six packages that people really ship, and what they need. And everything
//! that the examples need, for an index on loopback.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::image::python_with_pip;
use crate::{Result, process, workspace};

/// Pinned, so that a test that passes today passes tomorrow, and numbers can be compared.
const REQUIREMENTS: [&str; 6] = [
    "boto3==1.40.61",
    "cryptography==45.0.7",
    "numpy==2.2.6",
    "pandas==2.2.3",
    "pydantic==2.11.10",
    "requests==2.32.5",
];

/// Other pips for the tests that compare with pip: the oldest that is of interest, one that reads no locks, and one that
/// does.
const PIPS: [&str; 3] = ["pip==20.3.4", "pip==25.3", "pip==26.3"];

/// An index that others wrote, and what it imports.
const SERVER: [&str; 4] = ["pypiserver==2.4.2", "passlib==1.7.4", "packaging==25.0", "defusedxml==0.7.1"];

/// Another reader of locks.
const UV: &str = "uv==0.13.9";

/// Packages of which something has the name of what can be left out and cannot: those that people wrote of, and what they
/// need. The versions are those that they wrote of where newer ones do without.
const PRUNED: [&str; 48] = [
    "asgiref==3.10.0",
    "attrs==25.4.0",
    "boto3==1.40.61",
    "botocore==1.40.61",
    "cachetools==4.2.4",
    "certifi==2025.10.5",
    "cffi==2.0.0",
    "charset-normalizer==3.4.4",
    "Django==5.2.7",
    "google-api-core==1.16.0",
    "google-auth==1.35.0",
    "googleapis-common-protos==1.56.0",
    "h5py==3.14.0",
    "idna==3.11",
    "imageio==2.37.0",
    "importlib-metadata==8.7.0",
    "jmespath==1.0.1",
    "jsonschema==3.2.0",
    "lazy-loader==0.4",
    "MarkupSafe==3.0.3",
    "networkx==3.4.2",
    "numpy==2.2.6",
    "opentelemetry-api==1.38.0",
    "opentelemetry-sdk==1.38.0",
    "opentelemetry-semantic-conventions==0.59b0",
    "packaging==25.0",
    "pillow==11.3.0",
    "protobuf==3.20.3",
    "pyasn1-modules==0.4.2",
    "pyasn1==0.6.1",
    "pycparser==2.23",
    "pyproj==3.4.0",
    "pyrsistent==0.20.0",
    "python-dateutil==2.9.0.post0",
    "pytz==2025.2",
    "requests==2.32.5",
    "rsa==4.9.1",
    "s3transfer==0.14.0",
    "scikit-image==0.25.2",
    "scipy==1.15.3",
    "setuptools==80.9.0",
    "six==1.17.0",
    "sqlparse==0.5.3",
    "tifffile==2025.5.10",
    "typing-extensions==4.15.0",
    "urllib3==2.5.0",
    "Werkzeug==3.1.3",
    "zipp==3.23.0",
];

/// What the examples need, below their folder.
const EXAMPLES: [&str; 4] = [
    "data-science/requirements.txt",
    "layers/requirements/lambda.txt",
    "service/functions/requirements.txt",
    "service/functions/slack_send_message/requirements.txt",
];

/// What builds the source distribution below: what pip puts into an environment for builds.
const BUILD: [&str; 2] = ["setuptools==80.9.0", "wheel==0.45.1"];

/// The source distribution that an example needs. pip runs its `setup.py` before it hands it over, so it has to be the
/// one that was looked at.
const SOURCE: &str =
    "docopt==0.6.2 --hash=sha256:49b3a825280bd66b3aa83585ef59c4a8c82f2c8a522dbe754a8bc8d08c85c491\n";

/// Whether a file is a wheel of the six packages and what they need, not one of the tools beside them.
pub(crate) fn is_of_the_set(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.extension().is_some_and(|extension| extension == "whl")
        && !name.starts_with("pip-")
        && !name.starts_with("uv-")
}

/// Fetches all of them, the six for python3.11 on x86-64, unless that was done before, and returns their folder.
pub(crate) fn fetch() -> Result<PathBuf> {
    let folder = workspace::target()?.join("wheels");
    let wanted = [&REQUIREMENTS[..], &PIPS, &[UV]].concat().join("\n");
    fill(&folder, &wanted, || {
        download(&folder, &REQUIREMENTS)?;
        PIPS.iter().chain([&UV]).try_for_each(|tool| download(&folder, &[tool]))
    })?;
    Ok(folder)
}

/// The six packages, as a requirement file.
pub(crate) fn requirements() -> String {
    REQUIREMENTS.join("\n") + "\n"
}

/// uv's program, unpacked into a folder.
pub(crate) fn uv(folder: &Path) -> Result<PathBuf> {
    let wheels = fetch()?;
    let entries = fs_err::read_dir(&wheels)?.flatten().map(|entry| entry.path());
    let is_uv =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("uv-"));
    let wheel = entries.into_iter().find(is_uv).ok_or("there is no wheel of uv")?;
    process::output(
        Command::new("unzip")
            .args(["-q", "-o", "-j"])
            .arg(wheel)
            .args(["*.data/scripts/uv", "-d"])
            .arg(folder),
    )?;
    let program = folder.join("uv");
    process::output(Command::new("chmod").arg("+x").arg(&program))?;
    Ok(program)
}

/// Fetches what the examples need, unless that was done before, and returns its folder.
pub(crate) fn fetch_for_examples() -> Result<PathBuf> {
    let folder = workspace::target()?.join("index");
    let files = EXAMPLES.map(|name| workspace::root().join("examples").join(name));
    let mut wanted = format!("{}\n{SOURCE}", BUILD.join("\n"));
    for file in &files {
        wanted.push_str(&fs_err::read_to_string(file)?);
    }
    fill(&folder, &wanted, || {
        download(&folder, &BUILD)?;
        for file in &files {
            download(&folder, &["--requirement", &file.display().to_string()])?;
        }
        let pinned = folder.join("source.txt");
        fs_err::write(&pinned, SOURCE)?;
        let source = ["--no-deps", "--no-binary=:all:", "--require-hashes", "--requirement"];
        process::output(pip(&folder)?.args(source).arg(&pinned)).map(drop)
    })?;
    Ok(folder)
}

/// Fetches the wheels of another index, unless that was done before, and returns their folder.
pub(crate) fn fetch_server() -> Result<PathBuf> {
    let folder = workspace::target()?.join("pypiserver");
    fill(&folder, &SERVER.join("\n"), || {
        process::output(pip(&folder)?.args(["--no-deps", "--only-binary=:all:"]).args(SERVER)).map(drop)
    })?;
    Ok(folder)
}

/// Fetches the packages that the rules are tried on, unless that was done before, and returns their folder.
pub(crate) fn fetch_for_prune() -> Result<PathBuf> {
    let folder = workspace::target()?.join("prune");
    fill(&folder, &PRUNED.join("\n"), || download(&folder, &[&["--no-deps"], &PRUNED[..]].concat()))?;
    Ok(folder)
}

/// Fills a folder from nothing, unless it was filled with what is wanted before.
pub(crate) fn fill(folder: &Path, wanted: &str, download: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = folder.join("complete");
    if fs_err::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    if folder.exists() {
        fs_err::remove_dir_all(folder)?;
    }
    fs_err::create_dir_all(folder)?;
    download()?;
    fs_err::write(stamp, wanted)?;
    Ok(())
}

/// A pip that fetches into a folder what it is asked for.
pub(crate) fn pip(folder: &Path) -> Result<Command> {
    let mut pip = Command::new(python_with_pip()?);
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest"]).arg(folder);
    Ok(pip)
}

/// Fetches wheels for python3.11 on x86-64, with what they need, into a folder.
pub(crate) fn download(folder: &Path, requirements: &[&str]) -> Result<()> {
    let mut pip = pip(folder)?;
    pip.args(["--only-binary=:all:", "--python-version=3.11"])
        .args(["--platform=manylinux2014_x86_64", "--platform=manylinux_2_17_x86_64"])
        .args(requirements);
    process::output(&mut pip).map(drop)
}
