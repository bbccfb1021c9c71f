//! A root file system in a temporary directory, and short ways to run a command in it.

use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lbx_sandbox::{Backend, End, Error, Exit, Launcher, Overlay, Root, Spec, Streams};
use tempfile::TempDir;

/// Both ways to give a root to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Layers,
    Tree,
}

/// The program whose `main` starts with `init_if_child`.
pub(crate) fn launcher() -> Launcher {
    Launcher::program(env!("CARGO_BIN_EXE_sandbox-launcher"))
}

/// A root with busybox, in a directory that goes away with this value.
pub(crate) struct Rootfs {
    pub(crate) dir: TempDir,
    pub(crate) kind: Kind,
    pub(crate) backend: Backend,
}

/// Returns whether the test must be skipped, loudly; with `LBX_MUST_RUN=sandbox` that is a failure.
#[expect(clippy::disallowed_methods, reason = "the switch of the test run, read where it is needed")]
#[expect(clippy::print_stderr, reason = "a skip must be loud")]
pub(crate) fn skip(reason: &str) -> bool {
    let must = std::env::var("LBX_MUST_RUN").unwrap_or_default();
    assert!(!must.split(',').any(|m| m == "sandbox"), "LBX_MUST_RUN=sandbox, and {reason}");
    eprintln!("SKIP {reason}");
    true
}

/// What this host can run, found out once.
fn able() -> &'static Result<Vec<Kind>, String> {
    static ABLE: OnceLock<Result<Vec<Kind>, String>> = OnceLock::new();
    ABLE.get_or_init(|| {
        let diagnosis = launcher().diagnose(None).expect("a diagnosis");
        if !diagnosis.can_run() {
            return Err(format!("this host denies sandboxes: {diagnosis:?}"));
        }
        let directory = TempDir::with_prefix("lbx-sandbox-").expect("a directory");
        match launcher().overlay_supported(directory.path()).expect("an answer") {
            Overlay::Supported => Ok(vec![Kind::Tree, Kind::Layers]),
            Overlay::Refused(finding) => {
                skip(&format!("overlay: {finding}"));
                Ok(vec![Kind::Tree])
            }
        }
    })
}

/// The roots this host can run, or none with a loud word.
pub(crate) fn roots() -> Vec<Rootfs> {
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|p| p.exists())
    else {
        skip("there is no static busybox (package busybox-static)");
        return Vec::new();
    };
    match able() {
        Ok(kinds) => kinds.iter().map(|kind| Rootfs::new(*kind, busybox)).collect(),
        Err(reason) => {
            skip(reason);
            Vec::new()
        }
    }
}

/// The roots of [`roots`], and one for each other backend that is wanted and can run here: those of root need root.
fn with(wanted: &[Backend]) -> Vec<Rootfs> {
    let root = nix::unistd::geteuid().is_root();
    let of_root = |backend: &Backend| matches!(backend, Backend::RootNamespaces | Backend::Chroot);
    let mut roots = roots();
    if !roots.is_empty() {
        let busybox = roots[0].base().join("bin/busybox");
        let others = wanted.iter().filter(|backend| (root || !of_root(backend)) && !lacks_program(**backend));
        roots.extend(others.map(|backend| Rootfs { backend: *backend, ..Rootfs::new(Kind::Tree, &busybox) }));
    }
    roots
}

/// Whether a backend is a program that is not installed, which is said aloud.
fn lacks_program(backend: Backend) -> bool {
    matches!(backend, Backend::Bwrap | Backend::Proot)
        && !["/usr/bin", "/bin", "/usr/local/bin"].iter().any(|d| Path::new(d).join(backend.name()).exists())
        && skip(&format!("there is no {backend}"))
}

/// The roots of every backend with namespaces.
pub(crate) fn namespaced() -> Vec<Rootfs> {
    with(&[Backend::RootNamespaces, Backend::Bwrap])
}

/// The roots of every backend.
pub(crate) fn everywhere() -> Vec<Rootfs> {
    with(&[Backend::RootNamespaces, Backend::Bwrap, Backend::Chroot, Backend::Proot, Backend::Loader])
}

impl Rootfs {
    fn new(kind: Kind, busybox: &Path) -> Self {
        let dir = TempDir::with_prefix("lbx-sandbox-").expect("a directory");
        let root = Self { dir, kind, backend: Backend::Namespaces };
        let base = root.base();
        for name in ["bin", "etc", "proc", "dev", "sys", "tmp", "usr/lib", "var/tmp"] {
            fs_err::create_dir_all(base.join(name)).expect("a directory");
        }
        fs_err::copy(busybox, base.join("bin/busybox")).expect("busybox");
        fs_err::set_permissions(base.join("bin/busybox"), PermissionsExt::from_mode(0o755)).expect("mode");
        for applet in
            ["sh", "cat", "true", "false", "id", "ls", "sleep", "kill", "env", "mount", "unshare", "sync"]
        {
            symlink("busybox", base.join("bin").join(applet)).expect("a link");
        }
        fs_err::write(base.join("etc/image"), "from the image\n").expect("a file");
        fs_err::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("a file");
        root
    }

    /// The lowest layer, or the tree.
    pub(crate) fn base(&self) -> PathBuf {
        self.dir.path().join("base")
    }

    /// A fresh layer above the base. Only for layers.
    pub(crate) fn layer(&self, number: usize) -> PathBuf {
        let path = self.dir.path().join(format!("layer{number}"));
        fs_err::create_dir_all(&path).expect("a directory");
        path
    }

    pub(crate) fn root(&self) -> Root {
        match self.kind {
            Kind::Layers => Root::Layers(vec![self.base()]),
            Kind::Tree => Root::Tree(self.base()),
        }
    }

    /// A run of a shell script, with the variables a shell needs.
    pub(crate) fn shell(&self, script: &str) -> Spec {
        let mut spec = Spec::new(self.root(), ["/bin/sh", "-c", script]);
        spec.env.push(("PATH".to_owned(), "/bin".to_owned()));
        spec.backend = self.backend;
        spec.scratch = Some(self.dir.path().to_owned());
        spec
    }
}

/// What a command wrote, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    pub(crate) fn code(&self) -> i32 {
        match self.exit.end {
            End::Code(code) => code,
            End::Signal(signal) => panic!("signal {signal}: {self:?}"),
        }
    }
}

/// Runs to the end and collects everything.
pub(crate) fn try_run(spec: &Spec) -> Result<Output, Error> {
    let mut running = launcher().spawn(spec, Streams::piped())?;
    let (mut out, mut err) = (running.take_stdout().expect("stdout"), running.take_stderr().expect("stderr"));
    let messages = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).expect("messages in UTF-8");
        text
    });
    let mut stdout = String::new();
    out.read_to_string(&mut stdout).expect("output in UTF-8");
    let exit = running.wait()?;
    Ok(Output { exit, stdout, stderr: messages.join().expect("the reader") })
}

/// Runs a command that the sandbox must be able to start.
pub(crate) fn run(spec: &Spec) -> Output {
    try_run(spec).unwrap_or_else(|e| panic!("{e}\n{e:#?}"))
}

/// The output of a script that must succeed.
pub(crate) fn output(root: &Rootfs, script: &str) -> String {
    let output = run(&root.shell(script));
    assert!(output.exit.success(), "{:?}: {output:?}", root.kind);
    output.stdout
}

/// Runs a script that must fail, and returns what it said.
pub(crate) fn fails(root: &Rootfs, script: &str) -> String {
    let output = run(&root.shell(script));
    assert!(!output.exit.success(), "{:?}: {script} must fail: {output:?}", root.kind);
    output.stderr
}
