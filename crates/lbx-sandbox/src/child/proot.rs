//! The backend of the system's proot, which traces the command and changes the paths in its system calls: for users who
//! can neither make namespaces nor change the root directory.
//!
//! Tracing shows another root and another user id; it is not what keeps the command in. That are a Landlock domain and
//! the filter of system calls, both on proot itself and so on all that it starts: of the host, the domain leaves the
//! image, the inputs, and what proot needs. Everything lies in a directory of the run, under names without meaning to
//! proot, whose own syntax has colons.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::unistd::mkdtemp;

use super::domain::Rules;
use super::house::House;
use super::mounts::{self, Kind};
use super::payload::{self, Order, Situation};
use super::root::{self, Sources};
use super::{Isolate, Job, elf, inside, programs};
use crate::backend::Backend;
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{Access, File, Spec, is_below};

/// Devices that hold nothing.
pub(super) const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// See the module.
pub(super) struct Proot;

impl Isolate for Proot {
    fn backend(&self) -> Backend {
        Backend::Proot
    }

    fn probe(&self, spec: &Spec) -> Result<(), Failure> {
        programs::find(spec, "proot").map(drop)
    }

    fn run(&self, job: Job<'_>) -> Result<(), Failure> {
        let spec = job.spec;
        let program = programs::find(spec, "proot")?;
        let mut workshop = Workshop::new(spec)?;
        workshop.furnish(spec)?;
        let files = inside::Files::of_this_process()?;
        for (path, target) in files.targets() {
            workshop.show(path, &target, Kind::File, Access::ReadOnly)?;
        }
        let order = workshop.order(spec, &program, &files.command)?;
        let channel = inside::Channel::new()?;
        programs::trace(job, &program, &channel, |job, stderr| {
            payload::become_tracer(job, &order, &channel, stderr)
        })
    }
}

/// The directory of a run. It goes away with this value.
struct Workshop {
    path: PathBuf,
    house: House,
    /// What proot is told to show, and where.
    shown: Vec<String>,
    rules: Rules,
}

impl Workshop {
    fn new(spec: &Spec) -> Result<Self, Failure> {
        let stage = Stage::Root;
        let house = House::build(spec, None)?;
        // Without room for it there would be no house.
        let template =
            spec.scratch.as_ref().map_or_else(PathBuf::new, |scratch| scratch.join("proot-XXXXXX"));
        let path = mkdtemp(&template).or_fail(stage, || format!("mkdtemp({template:?})"))?;
        let rules = Rules {
            read: vec![house.path.clone(), "/proc".into()],
            write: DEVICES.iter().map(PathBuf::from).chain([path.join("proot")]).collect(),
            network: spec.network,
        };
        let workshop = Self { path, house, shown: Vec::new(), rules };
        for name in ["names", "proot"] {
            let path = workshop.path.join(name);
            fs_err::create_dir(&path).or_fail(stage, || format!("mkdir({path:?})"))?;
        }
        Ok(workshop)
    }

    /// Shows a path of the host at a place of the sandbox, which is there: proot makes places in /tmp, where it may
    /// write nothing.
    fn show(&mut self, source: &Path, target: &str, kind: Kind, access: Access) -> Result<(), Failure> {
        if target.contains(':') {
            let call = format!("show {target:?} with proot, to which a colon means something");
            return Err(Failure::new(Stage::Binds, call, Errno::EINVAL));
        }
        let (at, last) = self.house.free(target, Stage::Binds)?;
        mounts::make(&at, last, kind).or_fail(Stage::Binds, || format!("mknodat({target:?})"))?;
        let name = format!("names/{}", self.shown.len());
        let path = self.path.join(&name);
        symlink(source, &path).or_fail(Stage::Binds, || format!("symlink({source:?}, {path:?})"))?;
        self.shown.push(format!("{name}:{target}"));
        match access {
            Access::ReadOnly => self.rules.read.push(source.to_owned()),
            Access::ReadWrite => self.rules.write.push(source.to_owned()),
        }
        Ok(())
    }

    fn furnish(&mut self, spec: &Spec) -> Result<(), Failure> {
        let sources = Sources::open(spec)?;
        root::check_places(spec, &sources)?;
        let memory = [("/dev/shm", 0o1777)].into_iter();
        let memory = memory.chain(spec.tmpfs.iter().map(|tmpfs| (tmpfs.target.as_str(), tmpfs.mode)));
        for (number, (target, mode)) in memory.enumerate() {
            let path = self.path.join(format!("memory{number}"));
            make(&path, mode)?;
            self.show(&path, target, Kind::Directory, Access::ReadWrite)?;
        }
        for (bind, kind) in spec.binds.iter().zip(sources.kinds()) {
            self.show(&bind.source, &bind.target, kind, bind.access)?;
        }
        for device in DEVICES {
            let (at, name) = self.house.free(device, Stage::Devices)?;
            mounts::make(&at, name, Kind::File).or_fail(Stage::Devices, || format!("mknodat({device:?})"))?;
        }
        for file in &spec.files {
            self.file(spec, file)?;
        }
        Ok(())
    }

    /// A file of the run: in the house, unless one of the places that are shown there holds it.
    fn file(&mut self, spec: &Spec, file: &File) -> Result<(), Failure> {
        let inner = spec.tmpfs.iter().position(|tmpfs| is_below(&file.target, &tmpfs.target));
        let Some(number) = inner else { return self.house.write(file) };
        let below = &file.target[spec.tmpfs[number].target.len()..];
        // The first directory is that of shared memory.
        let path = self.path.join(format!("memory{}{below}", number + 1));
        let call = || format!("write({path:?})");
        fs_err::create_dir_all(path.parent().unwrap_or(&path)).or_fail(Stage::Files, call)?;
        fs_err::write(&path, &file.contents).or_fail(Stage::Files, call)?;
        let mode = std::fs::Permissions::from_mode(if file.executable { 0o755 } else { 0o644 });
        fs_err::set_permissions(&path, mode).or_fail(Stage::Files, call)
    }

    fn order(&mut self, spec: &Spec, program: &Path, command: &[String]) -> Result<Order, Failure> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        symlink(&self.house.path, self.path.join("root"))
            .or_fail(Stage::Root, || format!("symlink({:?})", self.house.path))?;
        let mut argv = vec![text(program), "-r".into(), "root".into()];
        for device in DEVICES.into_iter().chain(["/proc"]) {
            argv.extend(["-b".to_owned(), device.to_owned()]);
        }
        for shown in &self.shown {
            argv.extend(["-b".to_owned(), shown.clone()]);
        }
        argv.extend([
            "-w".to_owned(),
            spec.cwd.clone(),
            "-i".to_owned(),
            format!("{}:{}", spec.uid, spec.gid),
        ]);
        argv.extend(command.iter().cloned());
        let mut env = spec.env.clone();
        env.push(("PROOT_TMP_DIR".to_owned(), text(&self.path.join("proot"))));
        if let Some(loader) = self.loader(program)? {
            env.push(("PROOT_LOADER".to_owned(), text(&loader)));
        }
        self.rules.read.extend(libraries(program)?);
        Ok(Order {
            situation: Situation::BARE,
            argv,
            env,
            cwd: text(&self.path),
            rules: self.rules.clone(),
            // The first of those that are made in memory elsewhere is shared memory, the second is /tmp or its like.
            temporary: Some(self.path.join("memory0")),
            traces: true,
        })
    }
}

impl Workshop {
    /// A file with the small program that proot starts all others with. It would write one to /tmp itself, before
    /// version 5.2 whatever it is told.
    fn loader(&self, program: &Path) -> Result<Option<PathBuf>, Failure> {
        let bytes = fs_err::read(program).or_fail(Stage::Prepare, || format!("read({program:?})"))?;
        let Some(loader) = elf::embedded(&bytes) else { return Ok(None) };
        let path = self.path.join("proot/loader");
        let call = || format!("write({path:?})");
        fs_err::write(&path, loader).or_fail(Stage::Prepare, call)?;
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .or_fail(Stage::Prepare, call)?;
        Ok(Some(path))
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // The scratch directory is the caller's, who removes it in any case.
        let _ = fs_err::remove_dir_all(&self.path);
    }
}

fn make(path: &Path, mode: u32) -> Result<(), Failure> {
    fs_err::create_dir(path).or_fail(Stage::Tmpfs, || format!("mkdir({path:?})"))?;
    let mode = std::fs::Permissions::from_mode(mode);
    fs_err::set_permissions(path, mode).or_fail(Stage::Tmpfs, || format!("chmod({path:?})"))
}

/// The files that a program of the host needs to start: itself, its loader, its libraries. The loader lists them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, Failure> {
    let call = || format!("execve({program:?}), to list its libraries");
    let listed = Command::new(program)
        .env_clear()
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .output()
        .or_fail(Stage::Prepare, call)?;
    let text = String::from_utf8_lossy(&listed.stdout);
    let path = |line: &str| {
        let (path, address) = line.rsplit_once(" (0x")?;
        let start = path.find('/')?;
        address.ends_with(')').then(|| PathBuf::from(&path[start..]))
    };
    // A static program lists nothing.
    let found = text.lines().filter_map(path);
    Ok([program.to_owned(), "/etc/ld.so.cache".into()].into_iter().chain(found).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_a_program_are_listed_with_its_loader() {
        let found = libraries(Path::new("/bin/sh")).expect("a list");
        let has = |part: &str| found.iter().any(|path| path.to_string_lossy().contains(part));
        assert!(has("/bin/sh") && has("libc.so") && has("/ld-linux"), "{found:?}");
        assert!(found.iter().all(|path| path.exists()), "{found:?}");
    }
}
