//! The backend that needs nothing of the host but Landlock: the image's program is executed where it lies, by the
//! image's own loader, with paths of the host for those of the sandbox.
//!
//! The kernel asks the program for its loader's path, so the program is copied and told another one; its libraries are
//! found by `LD_LIBRARY_PATH`. What the program starts in turn must be itself (`sys.executable`): for other programs,
//! compilers above all, paths would have to mean something else than they do. The user id is the caller's.

use std::path::PathBuf;

use nix::errno::Errno;

use super::domain::Rules;
use super::elf::Program;
use super::payload::{self, Order, Purpose, Situation};
use super::proot::DEVICES;
use super::view::{Found, View, find_program, resolve};
use super::{Isolate, Job, family};
use crate::backend::Backend;
use crate::error::{Failure, OrFail, Stage};
use crate::spec::{Access, File, Network, Root, Spec};

/// Where images keep their libraries.
const LIBRARIES: [&str; 10] = [
    "/var/lang/lib",
    "/lib64",
    "/usr/lib64",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
];
/// What says which distribution this is: no secret, and pip stumbles where it is there and denied.
const RELEASE: [&str; 4] =
    ["/etc/os-release", "/usr/lib/os-release", "/etc/lsb-release", "/etc/debian_version"];
/// What programs ask for names, where there is a network.
const RESOLVER: [&str; 3] = ["/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"];

/// See the module.
pub(super) struct Loader;

impl Isolate for Loader {
    fn backend(&self) -> Backend {
        Backend::Loader
    }

    fn probe(&self, _: &Spec) -> Result<(), Failure> {
        Ok(())
    }

    fn run(&self, job: Job<'_>) -> Result<(), Failure> {
        let spec = job.spec;
        let tools = match job.purpose {
            Purpose::Command => Some(Executable::find(spec)?),
            Purpose::Test(_) => None,
        };
        let view = View::build(spec, tools.as_ref().map_or(&[], |tools| std::slice::from_ref(&tools.file)))?;
        let order = order(spec, &view, tools.as_ref())?;
        family::run(job, |job| payload::become_command(job, &order), || Ok(()))
    }
}

/// The program of the command, as a file that asks for the image's own loader.
struct Executable {
    file: File,
}

impl Executable {
    fn find(spec: &Spec) -> Result<Self, Failure> {
        let Root::Tree(tree) = &spec.root else {
            return Err(Failure::new(Stage::Root, "a root of layers without mounts", Errno::EOPNOTSUPP));
        };
        let Found { name, target } = find_program(tree, spec)?;
        let path = tree.join(target.trim_start_matches('/'));
        let bytes = fs_err::read(&path).or_fail(Stage::Exec, || format!("open({target:?})"))?;
        // A static program asks for no loader.
        if Program::is_static(&bytes) {
            return Ok(Self { file: File { target: name, contents: bytes, executable: true } });
        }
        let no_program = || {
            let call = format!("execve({target:?}) by the image's loader: it is no program of this kind");
            Failure::new(Stage::Exec, call, Errno::ENOEXEC)
        };
        let program = Program::parse(&bytes).ok_or_else(no_program)?;
        let loader = program.loader().and_then(|loader| resolve(tree, loader)).ok_or_else(no_program)?;
        let loader = tree.join(loader.trim_start_matches('/'));
        let contents = program.with_loader(loader.as_os_str().as_encoded_bytes());
        Ok(Self { file: File { target: name, contents, executable: true } })
    }
}

fn order(spec: &Spec, view: &View, executable: Option<&Executable>) -> Result<Order, Failure> {
    let text = |path: PathBuf| {
        let refused =
            |_| Failure::new(Stage::Root, "a scratch directory whose name is not UTF-8", Errno::EILSEQ);
        path.into_os_string().into_string().map_err(refused)
    };
    let mut argv: Vec<String> = spec.argv.iter().map(|word| view.translate(word)).collect();
    if let Some(executable) = executable {
        argv[0] = text(view.place(&executable.file.target))?;
    }
    let mut env: Vec<_> =
        spec.env.iter().map(|(name, value)| (name.clone(), view.translate(value))).collect();
    let given = env.iter().find(|(name, _)| name == "LD_LIBRARY_PATH").map(|(_, value)| value.clone());
    let own = LIBRARIES.iter().filter_map(|path| {
        let folder = resolve(&view.tree, path)?;
        let folder = view.tree.join(folder.trim_start_matches('/'));
        folder.is_dir().then(|| folder.to_string_lossy().into_owned())
    });
    let libraries: Vec<String> = given.into_iter().chain(own).collect();
    env.retain(|(name, _)| name != "LD_LIBRARY_PATH");
    env.push(("LD_LIBRARY_PATH".to_owned(), libraries.join(":")));
    if !env.iter().any(|(name, _)| name == "TMPDIR") {
        env.push(("TMPDIR".to_owned(), text(view.place("/tmp"))?));
    }
    let cwd = text(view.place(&spec.cwd))?;
    Ok(Order {
        situation: Situation::BARE,
        argv,
        env,
        cwd,
        rules: rules(spec, view),
        temporary: Some(view.place("/tmp")),
        traces: false,
    })
}

/// What the command may open: the image, the view and what it leads to, devices that hold nothing.
fn rules(spec: &Spec, view: &View) -> Rules {
    let mut read = vec![view.tree.clone(), view.path.clone()];
    let mut write: Vec<PathBuf> = DEVICES.iter().map(PathBuf::from).collect();
    for bind in &spec.binds {
        match bind.access {
            Access::ReadOnly => read.push(bind.source.clone()),
            Access::ReadWrite => write.push(bind.source.clone()),
        }
    }
    write.extend(spec.tmpfs.iter().map(|tmpfs| view.place(&tmpfs.target)));
    let real = |path: &&str| fs_err::canonicalize(path).ok();
    read.extend(RELEASE.iter().filter_map(real));
    if spec.network == Network::Host {
        read.extend(RESOLVER.iter().filter_map(real));
    }
    Rules { read, write, network: spec.network }
}
