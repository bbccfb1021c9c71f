//! What bytecode is for: how long the six packages take to be imported, with it and without, in the sandbox, when none of
//! their files is in memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_testkit::index;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::{Bound, Results};
use crate::{Result, process, wheels, workspace};

/// How often each has a turn.
const ROUNDS: usize = 7;

/// Says in seconds how long the imports take, without the start of Python.
const IMPORT: &str = "import sys, time
sys.path.insert(0, '/lbx/project/' + sys.argv[1])
begin = time.perf_counter()
import boto3, cryptography.fernet, numpy, pandas, pydantic, requests
print(time.perf_counter() - begin)";

/// The values of `bytecode`, each with the folder that its tree is in.
const KINDS: [(&str, &str); 3] = [("without", "false"), ("with", "true"), ("only", "\"only\"")];

/// Measures `import_bytecode_speedup` and `import_bytecode_only_speedup`.
pub(super) fn measure(scratch: &Path, image: &str, results: &mut Results) -> Result<()> {
    let index = index::serve(&wheels::fetch()?);
    let project = scratch.join("imports");
    fs_err::create_dir_all(project.join("src"))?;
    fs_err::write(project.join("src/handler.py"), "import boto3\n")?;
    fs_err::write(project.join("requirements.txt"), wheels::requirements())?;
    let lbx = |arguments: &[&str]| -> Result<Command> {
        let mut command = Command::new(workspace::release("lbx")?);
        command.args(arguments).args(["--image", image]).current_dir(&project);
        command.env("LBX_CACHE_DIR", scratch.join("cache-of-imports"));
        command.env("PIP_INDEX_URL", format!("http://{}/simple", index.address()));
        Ok(command)
    };
    for (name, value) in KINDS {
        let config = format!(
            "[project]\nruntime = \"python3.11\"\nbytecode = {value}\n[functions.{name}]\nsource = \"src\"\n\
             requirements = [\"requirements.txt\"]\n"
        );
        fs_err::write(project.join("lbx.toml"), config)?;
        process::output(&mut lbx(&["build", "--quiet"])?)?;
        let zip = project.join("dist").join(format!("{name}.zip"));
        process::output(Command::new("unzip").arg("-q").arg(zip).arg("-d").arg(project.join(name)))?;
    }
    let mut times = KINDS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for ((name, _), times) in KINDS.iter().zip(&mut times) {
            forget(&project.join(name))?;
            let mut command = lbx(&["run", "--quiet"])?;
            command.args(["--", "/var/lang/bin/python3.11", "-c", IMPORT, name]);
            times.push(process::text(&mut command)?.trim().parse::<f64>()?);
        }
    }
    let [without, with, only] = times.map(median);
    results.add("import_bytecode_speedup", without / with, Bound::AtLeast(1.0));
    results.add("import_bytecode_only_speedup", without / only, Bound::AtLeast(1.0));
    results.add("import_without_bytecode_ms", without * 1e3, Bound::Reported);
    results.add("import_with_bytecode_ms", with * 1e3, Bound::Reported);
    Ok(())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Has the kernel drop all pages of a tree's files, which it does when they are on the disk.
fn forget(tree: &Path) -> Result<()> {
    let mut folders: Vec<PathBuf> = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let file = fs_err::File::open(entry.path())?;
            file.sync_all()?;
            posix_fadvise(file.file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_whole_after_they_were_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir(folder.path().join("a")).unwrap();
        fs_err::write(folder.path().join("a/b"), "text").unwrap();
        forget(folder.path()).unwrap();
        assert_eq!(fs_err::read_to_string(folder.path().join("a/b")).unwrap(), "text");
    }
}
