//! The image as a place to run things: its root, its environment, its Python.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};

use lbx_image::Image;
use lbx_plan::ImageChoice;
use lbx_sandbox::{End, Exit, Network, Overlay, Reached, Root, Spec, Stream, Streams};
use lbx_wheel::normalize_name;
use serde::Deserialize;

use crate::bytecode::Dialect;
use crate::check::ImageLibraries;
use crate::error::Error;
use crate::event::Event;
use crate::limits::{Breach, Limits, Watch};
use crate::site::Site;
use crate::suspect;

/// Variables of the image that runs inside it get. All others are data, not instructions: an image must
/// not be able to say `LD_PRELOAD`.
const IMAGE_VARIABLES: [&str; 4] = ["PATH", "LD_LIBRARY_PATH", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR"];

/// What finds out about the image's Python. It must run on any Python 3, and import nothing of the image's
/// site-packages but the metadata of pip and what says which index it asks. The metadata alone does not say that pip is
/// there.
const PROBE: &str = "import sys, json
try:
    from importlib.metadata import version
    from importlib.util import find_spec
    pip = version('pip') if find_spec('pip') else None
except Exception:
    pip = None
try:
    from pip._internal.models.index import PyPI
    index = PyPI.simple_url
except Exception:
    index = None
packages = {}
try:
    import os
    from importlib.metadata import distributions
    for one in distributions(path=[os.environ.get('LAMBDA_RUNTIME_DIR', '/var/runtime')] + sys.path):
        if one.metadata['Name']:
            packages.setdefault(one.metadata['Name'], one.version)
except Exception:
    pass
try:
    from importlib.util import MAGIC_NUMBER
    bytecode = {'tag': sys.implementation.cache_tag, 'magic': MAGIC_NUMBER.hex()}
except Exception:
    bytecode = None
print(json.dumps({'python': '%d.%d.%d' % sys.version_info[:3], 'pip': pip, 'index': index, 'packages': packages,
                  'bytecode': bytecode}))";

/// An image that is ready to run things.
#[derive(Debug)]
pub(crate) struct Base {
    /// The image.
    pub(crate) image: Image,
    /// Its file system.
    pub(crate) root: Root,
    /// Its interpreter.
    pub(crate) interpreter: String,
    /// The version of its Python, such as `3.11.2`.
    pub(crate) python: String,
    /// The version of its pip.
    pub(crate) pip: String,
    /// The index that its pip asks when it is told of none.
    pub(crate) index: Option<String>,
    /// The distributions that it has, by normalised name, with their versions.
    pub(crate) packages: BTreeMap<String, String>,
    /// The bytecode that its Python writes, if it says so.
    pub(crate) dialect: Option<Dialect>,
}

#[derive(Deserialize)]
struct Found {
    python: String,
    pip: Option<String>,
    index: Option<String>,
    #[serde(default)]
    packages: BTreeMap<String, String>,
    bytecode: Option<Dialect>,
}

impl Base {
    /// Makes the image's root, and finds its Python, which must be the runtime's.
    pub(crate) fn prepare(site: &Site, image: Image) -> Result<Self, Error> {
        let root = root(site, &image)?;
        let (interpreter, found) = find_python(site, &image, &root)?;
        let runtime = &site.choice.runtime;
        if !found.python.starts_with(&format!("{}.", runtime.python)) {
            return Err(Error::WrongPython {
                image: site.choice.image.clone(),
                found: found.python,
                expected: runtime.python.clone(),
                runtime: runtime.runtime.clone(),
            });
        }
        let pip = found.pip.ok_or_else(|| Error::NoPip { image: site.choice.image.clone() })?;
        let digest = image.manifest_digest.to_string();
        site.tell(Event::ImageReady { digest, python: found.python.clone(), pip: pip.clone() });
        let packages = found.packages.into_iter().map(|(name, version)| (normalize_name(&name), version));
        let (python, index, packages) = (found.python, found.index, packages.collect());
        Ok(Self { image, root, interpreter, python, pip, index, packages, dialect: found.bytecode })
    }

    /// The libraries that a function finds in the image, by the names that others need them by.
    pub(crate) fn libraries(&self, choice: &ImageChoice) -> ImageLibraries {
        let trees = match &self.root {
            Root::Layers(trees) => trees.as_slice(),
            Root::Tree(tree) => std::slice::from_ref(tree),
        };
        let machine = choice.arch.machine();
        let debian = ["lib", "usr/lib"].map(|folder| format!("{folder}/{machine}-linux-gnu"));
        let folders: Vec<&str> = LIBRARIES.into_iter().chain(debian.iter().map(String::as_str)).collect();
        let names = trees.iter().flat_map(|tree| folders.iter().flat_map(|folder| libraries(tree, folder)));
        let own = lbx_image::Reference::parse(&choice.runtime.image);
        let is_runtimes = own.is_ok_and(|own| {
            own.registry() == self.image.reference.registry()
                && own.repository() == self.image.reference.repository()
        });
        ImageLibraries { image: choice.image.clone(), is_runtimes, names: names.collect() }
    }
}

/// Where images have libraries, without links: those lead to one of the others.
const LIBRARIES: [&str; 7] =
    ["lib", "lib64", "usr/lib", "usr/lib64", "var/lang/lib", "var/runtime", "var/runtime/lib"];

/// The names of libraries in a folder of an image, which is a stranger's: no link is followed.
fn libraries(tree: &Path, folder: &str) -> Vec<String> {
    let mut place = tree.to_owned();
    for part in folder.split('/') {
        place.push(part);
        if !fs_err::symlink_metadata(&place).is_ok_and(|metadata| metadata.is_dir()) {
            return Vec::new();
        }
    }
    let Ok(entries) = fs_err::read_dir(&place) else { return Vec::new() };
    let is_file =
        |entry: &fs_err::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file() || kind.is_symlink());
    let names = entries.flatten().filter(is_file).filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.contains(".so")).collect()
}

/// The image's layers, stacked where the host allows it and copied together where not.
fn root(site: &Site, image: &Image) -> Result<Root, Error> {
    let stackable = site.isolation.backend.stacks_layers()
        && image.overlay_ready()
        && matches!(site.host.launcher.overlay_supported(site.store.root())?, Overlay::Supported);
    if stackable {
        return Ok(Root::Layers(image.layer_trees().into_iter().map(PathBuf::from).collect()));
    }
    let failed = |source| Error::image(&site.choice.image, source);
    Ok(Root::Tree(lbx_image::flatten(&site.store, image).map_err(failed)?))
}

/// The environment that runs in this image start from.
pub(crate) fn environment(image: &Image) -> Vec<(String, String)> {
    let allowed = |name: &str| IMAGE_VARIABLES.contains(&name);
    let mut environment: Vec<_> =
        image.config.env.iter().filter(|(name, _)| allowed(name)).cloned().collect();
    let fixed = [
        ("HOME", "/home/lbx"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("LOGNAME", "lbx"),
        ("PYTHONDONTWRITEBYTECODE", "1"),
        ("PYTHONHASHSEED", "0"),
        ("TZ", "UTC"),
        ("USER", "lbx"),
    ];
    environment.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
    if !environment.iter().any(|(name, _)| name == "PATH") {
        environment.push(("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()));
    }
    environment
}

/// The first interpreter that runs, of the runtime's own and those on the image's path.
fn find_python(site: &Site, image: &Image, root: &Root) -> Result<(String, Found), Error> {
    let runtime = &site.choice.runtime;
    let candidates =
        [runtime.interpreter.clone(), runtime.runtime.clone(), "python3".into(), "python".into()];
    for interpreter in &candidates {
        let spec = probe_spec(image, root, interpreter);
        match run(site, &spec, None, &|_| {}) {
            Err(Error::Sandbox(lbx_sandbox::Error::ProgramNotFound { .. })) => {}
            Err(Error::Sandbox(lbx_sandbox::Error::Exec { failure, .. }))
                if failure.errno_name() == "ENOEXEC" =>
            {
                return Err(Error::ForeignCpu {
                    image: site.choice.image.clone(),
                    arch: site.choice.arch.lambda(),
                    host: std::env::consts::ARCH,
                    why: site
                        .emulation
                        .as_ref()
                        .and_then(|found| found.as_ref().err())
                        .map(ToString::to_string),
                });
            }
            Err(error) => return Err(error),
            Ok(output) if output.ended.success() => {
                if let Ok(found) = serde_json::from_str(output.text.trim()) {
                    return Ok((interpreter.clone(), found));
                }
                return Err(fails(site, interpreter, &output));
            }
            Ok(output) => return Err(fails(site, interpreter, &output)),
        }
    }
    Err(Error::NoPython { image: site.choice.image.clone(), tried: candidates.into() })
}

fn probe_spec(image: &Image, root: &Root, interpreter: &str) -> Spec {
    let mut spec = Spec::new(root.clone(), [interpreter, "-I", "-c", PROBE]);
    spec.env = environment(image);
    spec
}

fn fails(site: &Site, interpreter: &str, output: &Output) -> Error {
    Error::PythonFails {
        image: site.choice.image.clone(),
        interpreter: interpreter.to_owned(),
        how: how(&output.ended),
        output: output.text.trim().to_owned(),
    }
}

/// How a command ended, in words.
pub(crate) fn how(ended: &Ended) -> String {
    match ended {
        Ended::Itself(Exit { end: End::Code(code), .. }) => format!("exit status {code}"),
        Ended::Itself(Exit { end: End::Signal(signal), .. }) => format!("killed by signal {signal}"),
        Ended::Stopped(breach) => breach.to_string(),
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    /// By itself.
    Itself(Exit),
    /// At a limit.
    Stopped(Breach),
}

impl Ended {
    /// What the end of a command means.
    pub(crate) fn of(exit: Exit) -> Self {
        match exit.reached {
            // All its processes were killed.
            Some(Reached::Memory(limit)) => Self::Stopped(Breach::Memory(limit)),
            _ => Self::Itself(exit),
        }
    }

    /// What to do about the limit that was met, if there was one.
    pub(crate) fn hint(&self, output: &str, limits: &Limits, room: Option<u64>) -> Option<String> {
        match self {
            Self::Itself(exit) => suspect::hint(output, exit, limits, room),
            Self::Stopped(breach) => Some(format!("raise the limit with {}", breach.option())),
        }
    }

    pub(crate) fn success(&self) -> bool {
        matches!(self, Self::Itself(exit) if exit.success())
    }
}

/// What a command in the sandbox said, and how it ended.
pub(crate) struct Output {
    pub(crate) ended: Ended,
    /// Both streams, as their lines came.
    pub(crate) text: String,
}

/// The one server that a command can reach.
pub(crate) trait Serves: Sync {
    /// Serves at the socket that the sandbox has made, or at its own.
    fn listen(&self, listener: Option<TcpListener>) -> io::Result<()>;

    /// Whether something is being made that the command waits for.
    fn is_exchanging(&self) -> bool {
        false
    }
}

/// The most of a command's output that is kept. Bytes.
const KEPT_OUTPUT: usize = 4 << 20;

/// Runs a command in the sandbox to its end, or until the build is cancelled; `line` sees each line. Where its network is
/// one server, that is `serving`.
pub(crate) fn run(
    site: &Site,
    spec: &Spec,
    serving: Option<&dyn Serves>,
    line: &(dyn Fn(&str) + Sync),
) -> Result<Output, Error> {
    run_within(site, site.limits, spec, serving, line)
}

/// The same within other limits of time and disk.
pub(crate) fn run_within(
    site: &Site,
    limits: Limits,
    spec: &Spec,
    serving: Option<&dyn Serves>,
    line: &(dyn Fn(&str) + Sync),
) -> Result<Output, Error> {
    site.cancel.check()?;
    let spec = site.isolate(spec.clone())?;
    let streams = Streams { stdin: Stream::Null, stdout: Stream::Pipe, stderr: Stream::Pipe };
    let mut running = site.host.launcher.spawn(&spec, streams)?;
    let handle = running.kill_handle();
    let stop = handle.clone();
    let _registered = site.cancel.on_cancel(move || handle.kill());
    if let Some(serving) = serving {
        let is_apart = matches!(spec.network, Network::Served(_));
        serving.listen(if is_apart { running.listener()? } else { None })?;
    }
    let watch = Watch::start(limits, &spec);
    // What is built meanwhile has clocks of its own.
    let waits = || serving.is_some_and(Serves::is_exchanging);
    let heard = |said: &str| {
        watch.hear();
        line(said);
    };
    let text = Mutex::new(String::new());
    let (stdout, stderr) = (running.take_stdout(), running.take_stderr());
    let (breach, exit) = std::thread::scope(|scope| {
        let (end, ended) = mpsc::channel::<()>();
        let watchman = scope.spawn(|| watch.wait(&{ ended }, &waits).inspect(|_| stop.kill()));
        let reader = scope.spawn(|| stderr.map(|stderr| read_lines(stderr, &text, &heard)));
        if let Some(stdout) = stdout {
            read_lines(stdout, &text, &heard);
        }
        let read = reader.join();
        // Also when it has closed its streams and runs on.
        let exit = running.wait();
        drop(end);
        read.and_then(|_| watchman.join()).map(|breach| (breach, exit))
    })
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    site.cancel.check()?;
    let text = text.into_inner().unwrap_or_else(PoisonError::into_inner);
    match breach {
        Some(breach) => Ok(Output { ended: Ended::Stopped(breach), text }),
        None => Ok(Output { ended: Ended::of(exit?), text }),
    }
}

/// Reads a stream to its end. Bytes that are no UTF-8 are replaced, and what is over the limit is read and
/// dropped, so that no command can fill the memory or block on a full pipe.
fn read_lines(stream: impl std::io::Read, text: &Mutex<String>, line: &(dyn Fn(&str) + Sync)) {
    use std::io::BufRead;
    let mut reader = std::io::BufReader::new(stream);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let limited = std::io::Read::take(&mut reader, KEPT_OUTPUT as u64).read_until(b'\n', &mut bytes);
        // A stream that cannot be read is one that ended.
        if !matches!(limited, Ok(count) if count > 0) {
            return;
        }
        let one = String::from_utf8_lossy(&bytes);
        line(one.trim_end());
        let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
        if text.len() + one.len() <= KEPT_OUTPUT {
            text.push_str(&one);
        }
    }
}
