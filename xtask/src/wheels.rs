//! Real wheels for tests and the bench: the six packages that people really ship, and what they need.

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

/// Other pips for the tests that compare with pip: the oldest and the newest that are of interest.
const PIPS: [&str; 2] = ["pip==20.3.4", "pip==25.3"];

/// Whether a file is a wheel of the six packages and what they need, not one of the pips beside them.
pub(crate) fn is_of_the_set(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.extension().is_some_and(|extension| extension == "whl") && !name.starts_with("pip-")
}

/// Fetches all of them, the six for python3.11 on x86-64, unless that was done before, and returns their folder.
pub(crate) fn fetch() -> Result<PathBuf> {
    let folder = workspace::target()?.join("wheels");
    let stamp = folder.join("complete");
    let wanted = [&REQUIREMENTS[..], &PIPS].concat().join("\n");
    if fs_err::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(folder);
    }
    if folder.exists() {
        fs_err::remove_dir_all(&folder)?;
    }
    fs_err::create_dir_all(&folder)?;
    download(&folder, &REQUIREMENTS)?;
    for pip in PIPS {
        download(&folder, &[pip])?;
    }
    fs_err::write(stamp, wanted)?;
    Ok(folder)
}

fn download(folder: &Path, requirements: &[&str]) -> Result<()> {
    let mut pip = Command::new(python_with_pip()?);
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"])
        .args([
            "--python-version=3.11",
            "--platform=manylinux2014_x86_64",
            "--platform=manylinux_2_17_x86_64",
        ])
        .arg("--dest")
        .arg(folder)
        .args(requirements);
    process::output(&mut pip).map(drop)
}
