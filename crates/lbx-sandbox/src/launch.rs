//! The caller's side: starts the sandbox child, talks to it, waits for it, kills it. Enters no namespace.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Claims, Level};
use crate::diagnose::{self, Diagnosis, Overlay};
use crate::error::{Error, Failure, NO_ERROR, Stage};
use crate::group::Group;
use crate::limits::{Limits, Reached};
use crate::spec::{File, Network, Root, Spec};
use crate::wire::{self, Outside, Probe, Report, Request, Setting};

/// A host file that is copied into the sandbox is read up to this size; real ones are far smaller.
const MAX_HOST_FILE: u64 = 1024 * 1024;

/// The program that becomes the sandbox child. Its `main` must begin with [`init_if_child`](crate::init_if_child).
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    path: Vec<PathBuf>,
}

/// Where programs of the host are looked for when nobody says otherwise.
const USUAL_PATH: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// Where one standard stream of the command goes.
#[derive(Debug, Default)]
pub enum Stream {
    /// Empty for input, discarded for output.
    #[default]
    Null,
    /// The caller's own.
    Inherit,
    /// A pipe, whose other end is taken from [`Running`].
    Pipe,
    /// An open file, pipe or socket.
    To(OwnedFd),
}

/// The three standard streams of the command. The default is [`Stream::Null`] for each.
#[derive(Debug, Default)]
pub struct Streams {
    /// What the command reads.
    pub stdin: Stream,
    /// Where its output goes.
    pub stdout: Stream,
    /// Where its messages go.
    pub stderr: Stream,
}

impl Streams {
    /// No input; output and messages go where the caller's go.
    pub fn inherit() -> Self {
        Self { stdin: Stream::Null, stdout: Stream::Inherit, stderr: Stream::Inherit }
    }

    /// No input; output and messages come through pipes.
    pub fn piped() -> Self {
        Self { stdin: Stream::Null, stdout: Stream::Pipe, stderr: Stream::Pipe }
    }
}

/// How commands will be isolated, and why not in a stronger way.
#[derive(Debug)]
pub struct Chosen {
    /// The way.
    pub backend: Backend,
    /// What holds there.
    pub claims: Claims,
    /// The stronger ones, each with what went wrong.
    pub refused: Vec<(Backend, Error)>,
}

/// How a command ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its status.
    pub end: End,
    /// What it and all its descendants used.
    pub usage: Usage,
    /// A limit that was reached, as far as the kernel tells. It need not be what ended the command.
    pub reached: Option<Reached>,
}

impl Exit {
    pub(crate) fn new(end: End, usage: Usage) -> Self {
        Self { end, usage, reached: None }
    }

    /// Whether the command ended with status 0.
    pub fn success(&self) -> bool {
        self.end == End::Code(0)
    }
}

/// The status a command ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "signal {signal} ({name})"),
                Err(_) => write!(f, "signal {signal}"),
            },
        }
    }
}

/// What the processes of a sandbox used, from the kernel's accounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in user mode, summed.
    pub user: Duration,
    /// Processor time in the kernel, summed.
    pub system: Duration,
    /// The largest resident set of any one process, in bytes.
    pub max_rss: u64,
    /// The most memory that all of them had at one time, in bytes, where a control group counted it.
    pub peak: Option<u64>,
}

impl Launcher {
    /// The running program itself, even when its file has been replaced since it started.
    pub fn current_exe() -> Self {
        Self::program("/proc/self/exe")
    }

    /// Another program.
    pub fn program(path: impl Into<PathBuf>) -> Self {
        Self { program: path.into(), path: USUAL_PATH.map(PathBuf::from).into() }
    }

    /// Looks in these folders, in place of the usual ones, for programs of the host that backends need.
    #[must_use]
    pub fn with_path(self, folders: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { path: folders.into_iter().collect(), ..self }
    }

    /// Where programs of the host are looked for.
    pub(crate) fn path(&self) -> &[PathBuf] {
        &self.path
    }

    /// Starts a command. Returns when the child has been told; what goes wrong inside comes out of
    /// [`Running::wait`].
    ///
    /// May be called from any thread; the sandbox lives until it ends or its `Running` is dropped, or
    /// the calling process dies.
    pub fn spawn(&self, spec: &Spec, streams: Streams) -> Result<Running, Error> {
        let group = Group::new(&spec.limits);
        let mut told = spec.clone();
        if group.is_some() {
            // What the group counts, no process needs to be limited in besides.
            told.limits = Limits { memory: None, processes: None, ..told.limits };
        }
        let request = self.packed(&told, |spec, sizes| Request::Run { spec, sizes })?;
        let mut running = self.begin(streams, spec.argv[0].clone())?;
        if let Some(group) = group {
            // Before it is told anything, so that nothing it does escapes the count.
            let added = group.add(running.child.id());
            added.map_err(|e| launch("cannot put the sandbox child into its control group", e))?;
            running.group = Some(group);
        }
        running.limits = spec.limits;
        running.tell(&request)?;
        Ok(running)
    }

    /// Chooses how to isolate commands: the strongest backend that passes a self-test, in which the place of a command
    /// tries what must be denied. With `only`, that one or none.
    ///
    /// `scratch` is a directory whose file system the roots of the commands will be on. What passes and still promises
    /// less than `require` is refused.
    pub fn choose(&self, only: Option<Backend>, require: Level, scratch: &Path) -> Result<Chosen, Error> {
        let mut refused = Vec::new();
        for backend in Backend::all().filter(|backend| only.is_none_or(|only| only == *backend)) {
            match self.test(backend, scratch) {
                Ok(claims) if claims.level() >= require => return Ok(Chosen { backend, claims, refused }),
                Ok(claims) => {
                    let level = claims.level();
                    let (diagnosis, others) = (None, Vec::new());
                    refused.push((backend, Error::TooWeak { backend, level, require, diagnosis, others }));
                }
                Err(error) => refused.push((backend, error)),
            }
        }
        // The first is the strongest, and the one whose diagnosis helps most.
        let mut refused = refused.into_iter();
        let (_, mut first) = refused.next().ok_or_else(|| Error::Spec("there are no backends".to_owned()))?;
        if let Error::Setup { others, diagnosis, .. } | Error::TooWeak { others, diagnosis, .. } = &mut first
        {
            others.extend(refused.map(|(backend, error)| (backend, in_full(&error))));
            // A diagnosis that cannot be made must not hide the failure it would explain.
            *diagnosis = self.diagnose(None).ok().map(Box::new);
        }
        Err(first)
    }

    /// Runs the self-test of a backend in an empty root. Its error comes without a diagnosis.
    pub fn test(&self, backend: Backend, scratch: &Path) -> Result<Claims, Error> {
        let template = scratch.join("self-test-XXXXXX");
        let made = nix::unistd::mkdtemp(&template);
        let directory = made.map_err(|e| launch(format!("cannot make `{}`", template.display()), e))?;
        let directory = Removed(directory);
        let tree = directory.0.join("tree");
        fs_err::create_dir(&tree).map_err(|e| launch("cannot make a root", e))?;
        let mut spec = Spec::new(Root::Tree(tree), ["self-test"]);
        (spec.backend, spec.scratch) = (backend, Some(directory.0.clone()));
        let (served, other) = (listen()?, listen()?);
        spec.network = Network::Served(port(&served)?);
        let outside =
            Outside { process: i32::try_from(std::process::id()).unwrap_or(1), port: port(&other)? };
        let request = self.packed(&spec, |spec, sizes| Request::Test { spec, sizes, outside })?;
        let mut running = self.begin(Streams::default(), String::new())?;
        running.tell(&request)?;
        // Held until the end, for what the test connects to.
        let mut inside = Vec::new();
        let report = loop {
            match running.receive()? {
                Some((Report::Listening, descriptors)) => inside = descriptors,
                other => break other.map(|(report, _)| report),
            }
        };
        let status = running.reap()?;
        drop((inside, served, other));
        match report {
            Some(Report::Tested(claims)) => Ok(claims),
            Some(Report::Failed(failure)) => Err(running.error(failure)),
            Some(Report::Exited(exit)) => {
                let call = format!("{backend} ended with {} before the self-test", exit.end);
                Err(running.error(Failure::new(Stage::SelfTest, call, NO_ERROR)))
            }
            Some(_) | None => Err(Error::Killed { status: status.to_string() }),
        }
    }

    /// Tries one thing in a throw-away child.
    pub(crate) fn probe(&self, probe: Probe) -> Result<(Option<Failure>, Setting), Error> {
        let request =
            wire::pack(&Request::Probe(probe), &[]).map_err(|e| launch("cannot pack the request", e))?;
        let mut running = self.begin(Streams::default(), String::new())?;
        running.tell(&request)?;
        let report = running.receive_report()?;
        let status = running.reap()?;
        match report {
            Some(Report::Probed { failure, setting }) => Ok((failure, setting)),
            Some(Report::Failed(failure)) => Ok((Some(failure), Setting::default())),
            Some(_) | None => Err(Error::Killed { status: status.to_string() }),
        }
    }

    /// Whether the kernel stacks layers that lie in `directory`, with a whiteout and an opaque directory.
    ///
    /// Tried with a real mount in a throw-away child, over a directory that is made in `directory` and
    /// removed again. Where the answer is no, merge the layers and use [`Root::Tree`].
    pub fn overlay_supported(&self, directory: &Path) -> Result<Overlay, Error> {
        diagnose::overlay(self, directory)
    }

    /// Tries every layer of the sandbox in a throw-away child of its own, and says what denies it.
    ///
    /// `store` is the directory whose file system holds the layers; without it overlays are not tried.
    pub fn diagnose(&self, store: Option<&Path>) -> Result<Diagnosis, Error> {
        diagnose::diagnose(self, store)
    }

    /// Checks and completes a specification, and packs it into a request.
    fn packed(
        &self,
        spec: &Spec,
        request: impl FnOnce(Box<Spec>, Vec<usize>) -> Request,
    ) -> Result<OwnedFd, Error> {
        spec.check()?;
        let mut spec = spec.clone();
        spec.path.clone_from(&self.path);
        // Where the command has files to change, they are the image's own.
        if !spec.administers() {
            add_generated_files(&mut spec);
        }
        for tmpfs in &mut spec.tmpfs {
            tmpfs.size = tmpfs.size.or(spec.limits.tmp);
        }
        let contents: Vec<_> = spec.files.iter_mut().map(|f| std::mem::take(&mut f.contents)).collect();
        let contents: Vec<_> = contents.iter().map(Vec::as_slice).collect();
        let sizes = contents.iter().map(|c| c.len()).collect();
        let packed = wire::pack(&request(Box::new(spec), sizes), &contents);
        packed.map_err(|e| launch("cannot pack the request", e))
    }

    /// Starts the child, which does nothing before it is told what.
    fn begin(&self, streams: Streams, program: String) -> Result<Running, Error> {
        let packets = SockType::SeqPacket;
        let (ours, theirs) = socketpair(AddressFamily::Unix, packets, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|e| launch("cannot make a socket pair", e))?;
        let streams = Opened::new(streams).map_err(|e| launch("cannot open the standard streams", e))?;
        // The child's own standard input is the socket, so that no descriptor must be inherited and
        // the standard library can use vfork. A process group of its own keeps ^C for the caller, who
        // decides what it means.
        let child = Command::new(&self.program)
            .arg0(wire::MARKER)
            .env_clear()
            .stdin(theirs)
            .stdout(streams.stdout)
            .stderr(streams.stderr)
            .process_group(0)
            .spawn()
            .map_err(|e| launch(format!("cannot start `{}`", self.program.display()), e))?;
        Ok(Running {
            child,
            socket: Arc::new(ours),
            reaped: false,
            launcher: self.clone(),
            program,
            input: Some(streams.stdin),
            stdin: streams.stdin_pipe,
            stdout: streams.stdout_pipe,
            stderr: streams.stderr_pipe,
            limits: Limits::default(),
            group: None,
        })
    }
}

impl Default for Launcher {
    fn default() -> Self {
        Self::current_exe()
    }
}

/// A command in its sandbox. Dropping it kills every process of the sandbox and waits for their end.
#[derive(Debug)]
pub struct Running {
    child: Child,
    socket: Arc<OwnedFd>,
    reaped: bool,
    launcher: Launcher,
    program: String,
    /// The command's own standard input, until the child is told.
    input: Option<OwnedFd>,
    stdin: Option<PipeWriter>,
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
    limits: Limits,
    /// The last, so that its processes are dead before it is removed.
    group: Option<Group>,
}

impl Running {
    /// Tells the child what it is for.
    fn tell(&mut self, request: &OwnedFd) -> Result<(), Error> {
        let input = self.input.take();
        let descriptors: Vec<_> = [request].into_iter().chain(&input).map(AsFd::as_fd).collect();
        let sent = wire::send(self.socket.as_fd(), &(), &descriptors);
        sent.map_err(|e| launch("cannot send the request to the sandbox child", e))
    }

    /// The writing end of the command's input, once, when it is a [`Stream::Pipe`].
    pub fn take_stdin(&mut self) -> Option<PipeWriter> {
        self.stdin.take()
    }

    /// The reading end of the command's output, once, when it is a [`Stream::Pipe`]. It ends when every
    /// process of the sandbox has ended.
    pub fn take_stdout(&mut self) -> Option<PipeReader> {
        self.stdout.take()
    }

    /// The reading end of the command's messages, once, when it is a [`Stream::Pipe`].
    pub fn take_stderr(&mut self) -> Option<PipeReader> {
        self.stderr.take()
    }

    /// A handle that signals or kills the sandbox from another thread.
    pub fn kill_handle(&self) -> KillHandle {
        KillHandle { socket: Arc::clone(&self.socket) }
    }

    /// Becomes readable when the command has ended.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// See [`KillHandle::signal`].
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        self.kill_handle().signal(signal)
    }

    /// See [`KillHandle::kill`].
    pub fn kill(&self) {
        self.kill_handle().kill();
    }

    /// Waits until every process of the sandbox has ended, and says how the command did.
    ///
    /// Blocks the thread. Pipes that were not taken are closed first, so that a command cannot block on
    /// output that nobody reads.
    pub fn wait(mut self) -> Result<Exit, Error> {
        drop((self.stdin.take(), self.stdout.take(), self.stderr.take()));
        let report = self.receive_report()?;
        let status = self.reap()?;
        let exit = match report {
            Some(Report::Exited(exit)) if status.success() => exit,
            // It ended, and then what it left could not be handed over.
            Some(Report::Exited(exit)) => match self.receive_report()? {
                Some(Report::Failed(failure)) => return Err(self.explain(failure)),
                _ => exit,
            },
            Some(Report::Failed(failure)) => return Err(self.explain(failure)),
            // All of the group, and the child is in it too.
            None if matches!(self.reached(), Some(Reached::Memory(_))) => {
                Exit::new(End::Signal(nix::libc::SIGKILL), Usage::default())
            }
            Some(_) | None => return Err(Error::Killed { status: status.to_string() }),
        };
        let too_large = exit.end == End::Signal(nix::libc::SIGXFSZ);
        let file_size = self.limits.file_size.filter(|_| too_large).map(Reached::FileSize);
        let peak = self.group.as_ref().and_then(Group::peak);
        Ok(Exit { reached: self.reached().or(file_size), usage: Usage { peak, ..exit.usage }, ..exit })
    }

    fn reached(&self) -> Option<Reached> {
        self.group.as_ref().and_then(Group::reached)
    }

    /// The socket that the command's connections come to, when its network is [`Network::Served`]; nothing when they
    /// come to the caller's own. To be asked for once, before [`Running::wait`]; blocks until the sandbox stands.
    pub fn listener(&mut self) -> Result<Option<TcpListener>, Error> {
        match self.receive()? {
            Some((Report::Listening, mut descriptors)) => Ok(descriptors.pop().map(TcpListener::from)),
            Some((Report::Failed(failure), _)) => {
                self.reap()?;
                Err(self.explain(failure))
            }
            Some(_) | None => Err(Error::Killed { status: self.reap()?.to_string() }),
        }
    }

    fn receive(&self) -> Result<Option<(Report, Vec<OwnedFd>)>, Error> {
        let received = wire::receive::<Report>(self.socket.as_fd());
        received.map_err(|e| launch("cannot receive the sandbox child's report", e))
    }

    fn receive_report(&self) -> Result<Option<Report>, Error> {
        loop {
            match self.receive()?.map(|(report, _)| report) {
                // Nobody has asked for it.
                Some(Report::Listening) => {}
                report => return Ok(report),
            }
        }
    }

    fn reap(&mut self) -> Result<ExitStatus, Error> {
        let status = self.child.wait().map_err(|e| launch("cannot wait for the sandbox child", e))?;
        self.reaped = true;
        Ok(status)
    }

    fn error(&self, failure: Failure) -> Error {
        if failure.stage == Stage::Exec {
            let program = self.program.clone();
            return match Errno::from_raw(failure.errno) {
                Errno::ENOENT => Error::ProgramNotFound { program },
                _ => Error::Exec { program, failure },
            };
        }
        Error::Setup { failure, diagnosis: None, others: Vec::new() }
    }

    /// The error, with a diagnosis when this host may be the cause.
    fn explain(&self, failure: Failure) -> Error {
        let mut error = self.error(failure);
        if let Error::Setup { failure, diagnosis, .. } = &mut error
            && failure.may_be_refusal()
        {
            // A diagnosis that cannot be made must not hide the failure it would explain.
            *diagnosis = self.launcher.diagnose(None).ok().map(Box::new);
        }
        error
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            // Nothing can be done about an error here: the child is gone or will be when we are.
            let _ = self.child.wait();
        }
    }
}

/// Signals or kills a sandbox from any thread, at any time; harmless when it has already ended.
#[derive(Debug, Clone)]
pub struct KillHandle {
    socket: Arc<OwnedFd>,
}

impl KillHandle {
    /// Sends a signal to the command and its process group. A second TERM, INT or HUP kills the sandbox.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        match wire::send(self.socket.as_fd(), &wire::Command::Signal(signal), &[]) {
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                Ok(())
            }
            other => other.map_err(|e| launch("cannot send a signal to the sandbox", e)),
        }
    }

    /// Kills every process of the sandbox. [`Running::wait`] returns when the last one is gone.
    pub fn kill(&self) {
        // The end of the stream is the order to die. It can only fail when the other side is gone.
        let _ = shutdown(std::os::fd::AsRawFd::as_raw_fd(&*self.socket), Shutdown::Write);
    }
}

fn launch(action: impl Into<String>, source: impl Into<io::Error>) -> Error {
    Error::Launch { action: action.into(), source: source.into() }
}

/// A port of this machine that nobody else has.
fn listen() -> Result<TcpListener, Error> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| launch("cannot listen on 127.0.0.1", e))
}

fn port(listener: &TcpListener) -> Result<u16, Error> {
    let address = listener.local_addr().map_err(|e| launch("cannot ask for the port of a socket", e))?;
    Ok(address.port())
}

/// An error with what the system said, in one line.
fn in_full(error: &Error) -> String {
    match error {
        Error::Launch { action, source } => format!("{action}: {source}"),
        other => other.to_string(),
    }
}

/// The streams as descriptors: those the child gets, and our ends of the pipes.
struct Opened {
    stdin: OwnedFd,
    stdout: Stdio,
    stderr: Stdio,
    stdin_pipe: Option<PipeWriter>,
    stdout_pipe: Option<PipeReader>,
    stderr_pipe: Option<PipeReader>,
}

impl Opened {
    fn new(streams: Streams) -> io::Result<Self> {
        let (stdin, stdin_pipe) = match streams.stdin {
            Stream::Null => (fs_err::File::open("/dev/null")?.into_parts().0.into(), None),
            Stream::Inherit => (io::stdin().as_fd().try_clone_to_owned()?, None),
            Stream::Pipe => {
                let (reader, writer) = io::pipe()?;
                (reader.into(), Some(writer))
            }
            Stream::To(descriptor) => (descriptor, None),
        };
        let (stdout, stdout_pipe) = output(streams.stdout)?;
        let (stderr, stderr_pipe) = output(streams.stderr)?;
        Ok(Self { stdin, stdout, stderr, stdin_pipe, stdout_pipe, stderr_pipe })
    }
}

fn output(stream: Stream) -> io::Result<(Stdio, Option<PipeReader>)> {
    Ok(match stream {
        Stream::Null => (Stdio::null(), None),
        Stream::Inherit => (Stdio::inherit(), None),
        Stream::Pipe => {
            let (reader, writer) = io::pipe()?;
            (writer.into(), Some(reader))
        }
        Stream::To(descriptor) => (descriptor.into(), None),
    })
}

/// A directory that goes away with this value.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // It is empty but for a root that nothing was built in, and lies in the caller's scratch space.
        let _ = fs_err::remove_dir_all(&self.0);
    }
}

/// Adds the files that every program expects in /etc, unless the specification has its own.
fn add_generated_files(spec: &mut Spec) {
    let (uid, gid, home, name) = (spec.uid, spec.gid, &spec.home, &spec.hostname);
    let passwd = format!("lbx:x:{uid}:{gid}:lbx:{home}:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
    let group = format!("lbx:x:{gid}:\nnogroup:x:65534:\n");
    let local = format!("127.0.0.1 localhost {name}\n::1 localhost\n");
    let (hosts, resolv) = match spec.network {
        Network::None | Network::Served(_) => (local.into_bytes(), Vec::new()),
        Network::Host => (
            host_file("/etc/hosts").unwrap_or_else(|| local.into_bytes()),
            host_file("/etc/resolv.conf").unwrap_or_default(),
        ),
    };
    for (target, contents) in [
        ("/etc/passwd", passwd.into_bytes()),
        ("/etc/group", group.into_bytes()),
        ("/etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n".to_vec()),
        ("/etc/hosts", hosts),
        ("/etc/resolv.conf", resolv),
    ] {
        let taken = spec.files.iter().any(|f| f.target == target)
            || spec.binds.iter().any(|b| target == b.target || crate::spec::is_below(target, &b.target))
            || spec.tmpfs.iter().any(|t| target == t.target);
        if !taken {
            spec.files.push(File { target: target.to_owned(), contents, executable: false });
        }
    }
}

/// The contents of a host file, wherever its symlinks lead; `None` when it is not a readable file.
fn host_file(path: &str) -> Option<Vec<u8>> {
    use std::io::Read;
    let file = fs_err::File::open(fs_err::canonicalize(path).ok()?).ok()?;
    let mut contents = Vec::new();
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    file.take(MAX_HOST_FILE).read_to_end(&mut contents).ok()?;
    Some(contents)
}
