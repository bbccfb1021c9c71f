//! Dependencies: a locked build, a resolution and a download of the six-package set, against uv and against pip, from an
//! index on loopback.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lbx_testkit::index;
use lbx_testkit::stub::Stub;

use super::measure::{Contestant, medians};
use super::{Bound, Results, has, remove};
use crate::image::python_with_pip;
use crate::{Result, process, wheels, workspace};

/// How often everybody has a turn.
const ROUNDS: usize = 7;
/// How often the slow ones have one.
const SLOW_ROUNDS: usize = 3;
/// How long a far index takes to answer.
const LATENCY: Duration = Duration::from_millis(50);

/// What all contestants have.
struct Bench<'b> {
    scratch: &'b Path,
    image: &'b str,
    project: PathBuf,
}

/// Measures `locked_warm_ms_vs_uv`, `resolve_proxy_overhead` and `fetch_parallel_vs_pip`.
pub(super) fn measure(scratch: &Path, image: &str, results: &mut Results) -> Result<()> {
    let folder = wheels::fetch()?;
    let project = scratch.join("dependencies");
    fs_err::create_dir_all(&project)?;
    fs_err::write(project.join("app.py"), "")?;
    fs_err::write(project.join("requirements.txt"), wheels::requirements())?;
    let bench = Bench { scratch, image, project };
    // pip keeps what it is told that it may keep.
    let near = index::serve_with(&folder, |_, reply| reply.with_header("Cache-Control", "max-age=600"));
    bench.process(bench.lbx("lock", &near)?)?;
    bench.locked(&near, results)?;
    bench.resolved(&near, results)?;
    let far = index::serve_with(&folder, |_, reply| lbx_testkit::stub::Reply { pause: LATENCY, ..reply });
    bench.process(bench.lbx("lock", &far)?.arg("--upgrade"))?;
    bench.fetched(&far, results)
}

impl Bench<'_> {
    fn lbx(&self, name: &str, index: &Stub) -> Result<Command> {
        let mut command = Command::new(workspace::release("lbx")?);
        command.args([name, "--quiet", "--runtime", "python3.11", "--image", self.image]);
        command.env("LBX_CACHE_DIR", self.scratch.join("cache")).current_dir(&self.project);
        self.indexed(&mut command, index);
        Ok(command)
    }

    fn indexed(&self, command: &mut Command, index: &Stub) {
        command.env("PIP_INDEX_URL", format!("http://{}/simple", index.address()));
        command.env("UV_INDEX_URL", format!("http://{}/simple", index.address()));
        command.env("UV_CACHE_DIR", self.scratch.join("uv-cache")).env("no_proxy", "127.0.0.1");
        command.env_remove("PIP_FIND_LINKS");
    }

    fn process(&self, mut command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
        let _ = self;
        process::output(command.borrow_mut()).map(drop)
    }

    fn pip(&self, arguments: &[&str], index: &Stub) -> Result<Command> {
        let mut command = Command::new(python_with_pip()?);
        command.args(["-m", "pip", "--quiet", "--disable-pip-version-check", "--cache-dir"]);
        command.arg(self.scratch.join("pip-cache")).args(arguments).current_dir(&self.project);
        self.indexed(&mut command, index);
        Ok(command)
    }

    /// Wheels in the store to a zip, against the same with uv and zip.
    fn locked(&self, index: &Stub, results: &mut Results) -> Result<()> {
        let out = self.scratch.join("locked");
        let build = || self.process(self.lbx("build", index)?.arg("--locked").arg("--out-dir").arg(&out));
        if !has("zip") {
            results.skip("locked_warm_ms_vs_uv", "zip");
            return Ok(());
        }
        let (uv, tree, zip) =
            (wheels::uv(self.scratch)?, self.scratch.join("uv-tree"), self.scratch.join("uv.zip"));
        let peer = || -> Result<()> {
            let mut install = Command::new(&uv);
            install.args(["pip", "install", "--quiet", "--python", python_with_pip()?]);
            install.arg("--target").arg(&tree).args(["-r", "requirements.txt"]).current_dir(&self.project);
            self.indexed(&mut install, index);
            process::output(&mut install)?;
            let mut zip6 = Command::new("zip");
            zip6.args(["-q", "-r", "-6", "-X"]).arg(&zip).arg(".").current_dir(&tree);
            process::output(&mut zip6).map(drop)
        };
        let clean = || remove(&tree).and_then(|()| remove(&zip));
        let ours = medians(ROUNDS, &mut [Contestant::new(|| remove(&out), build)])?[0];
        let theirs = medians(SLOW_ROUNDS, &mut [Contestant::new(clean, peer)])?[0];
        results.add("locked_warm_ms", ours * 1e3, Bound::Reported);
        results.add("locked_warm_ms_vs_uv", theirs / ours, Bound::AtLeast(30.0));
        Ok(())
    }

    /// A whole build without its lock, all in the store, against what pip alone does with all in its own cache.
    fn resolved(&self, index: &Stub, results: &mut Results) -> Result<()> {
        let (lock, aside) = (self.project.join("pylock.toml"), self.project.join("aside"));
        let out = self.scratch.join("resolved");
        fs_err::rename(&lock, &aside)?;
        let build = || self.process(self.lbx("build", index)?.arg("--out-dir").arg(&out));
        let wheels = self.scratch.join("pip-wheels");
        let pip = || {
            let mut pip = self.pip(&["wheel", "--requirement", "requirements.txt", "--wheel-dir"], index)?;
            process::output(pip.arg(&wheels)).map(drop)
        };
        let times = medians(
            ROUNDS,
            &mut [Contestant::new(|| remove(&out), build), Contestant::new(|| remove(&wheels), pip)],
        )?;
        fs_err::rename(&aside, &lock)?;
        results.add("resolve_proxy_overhead", times[0] / times[1], Bound::AtMost(1.0));
        Ok(())
    }

    /// A locked build that has to fetch all, against pip, which has to resolve first because it reads no such lock.
    fn fetched(&self, index: &Stub, results: &mut Results) -> Result<()> {
        let (cold, out) = (self.scratch.join("cold"), self.scratch.join("fetched"));
        let build = || {
            let mut build = self.lbx("build", index)?;
            build.env("LBX_CACHE_DIR", &cold).arg("--locked").arg("--out-dir").arg(&out);
            process::output(&mut build).map(drop)
        };
        let wheels = self.scratch.join("downloaded");
        let pip = || {
            let mut pip = self
                .pip(&["download", "--no-cache-dir", "--requirement", "requirements.txt", "--dest"], index)?;
            process::output(pip.arg(&wheels)).map(drop)
        };
        let times = medians(
            SLOW_ROUNDS,
            &mut [
                Contestant::new(|| remove(&cold).and_then(|()| remove(&out)), build),
                Contestant::new(|| remove(&wheels), pip),
            ],
        )?;
        results.add("fetch_parallel_vs_pip", times[1] / times[0], Bound::AtLeast(3.0));
        Ok(())
    }
}
