//! What the user typed, as types. What it means is found out by the commands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lbx_plan::Architecture;
use lbx_sandbox::{Backend, Level};

use crate::limits::{Limits, Resources};

/// Builds AWS Lambda zips and layers for Python in the real Lambda image: no Docker, no daemon, no root.
#[derive(Debug, Parser)]
#[command(name = "lbx", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say nothing but errors; results still go to stdout.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Show what pip says, and a log for developers; twice for all of it.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// How to say it.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "human")]
    pub(crate) message_format: MessageFormat,
}

/// How messages look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MessageFormat {
    /// Text on stderr, results on stdout.
    Human,
    /// One JSON object a line on stdout.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build functions and layers into zips.
    Build(Box<Build>),
    /// Resolve requirements, and write down what exactly they come to, as pylock.toml.
    Lock(Box<Lock>),
    /// Write all that a locked build needs to a folder or a .tar, for machines without a network.
    Vendor(Box<Vendor>),
    /// Run a command in the image, isolated as builds are, with the project at /lbx/project.
    Run(Box<Run>),
    /// The same with the image's shell.
    Shell(Box<Session>),
    /// Fetch an image into the store, verified and unpacked.
    Pull(Pull),
    /// Look for what will not work in Lambda, in any zip or folder: limits, libraries, names, secrets, imports.
    Check(Box<Check>),
    /// List the runtimes, their images, and what was pulled.
    Images,
    /// Say in what two zips differ: packages, files, sizes, modes.
    Diff(Diff),
    /// Say why something is in a zip or is not, and how large it is.
    Explain(Box<Explain>),
    /// Look after the store: how much is in it, remove what is old, find what is damaged.
    Cache(Cache),
    /// Find out whether this host can build, and if not, why and what to do.
    Doctor(Doctor),
    /// Print the JSON schema of lbx.toml.
    #[command(hide = true)]
    Schema(Schema),
}

/// `lbx build`.
///
/// With an lbx.toml, builds all its functions and layers, or those named. Without one, builds the folder as
/// one function (with its requirements.txt, lock or pyproject.toml, if it has one), or, with --layer, as one layer.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Build {
    #[command(flatten)]
    pub(crate) what: What,
    /// The zip to write, when there is one artifact.
    #[arg(short, long, value_name = "FILE", conflicts_with = "out_dir")]
    pub(crate) output: Option<PathBuf>,
    /// The folder to write zips to, instead of dist beside lbx.toml.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out_dir: Option<PathBuf>,
    /// A folder that the artifact is put into as well, when there is one: the files of its zip, with their modes.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) dir: Option<PathBuf>,
    /// A page about what was built, for a browser: sizes by package and file, and what has changed.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Fail where requirements have no lock, or one that does not cover them.
    #[arg(long)]
    pub(crate) locked: bool,
    /// Build anew what has to be built from source, twice, and say what differs.
    #[arg(long)]
    pub(crate) rebuild: bool,
    /// Publish what the checks find fault with, too.
    #[arg(long)]
    pub(crate) no_check: bool,
    /// Take what `lbx vendor` wrote into the store first.
    #[arg(long, value_name = "PATH")]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// `lbx vendor`.
///
/// Requirements must be locked. Writes the image, all wheels, what was built, and the locks; the same inputs give the
/// same bytes. `lbx build --offline --from PATH` builds from it on a machine that has never been online.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Vendor {
    /// The folder to write, or a file whose name ends in .tar.
    #[arg(value_name = "PATH")]
    pub(crate) destination: PathBuf,
    #[command(flatten)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// `lbx lock`.
///
/// Writes a pylock.toml (PEP 751) for each set of requirements, beside the last file of it: pylock.toml for
/// requirements.txt, pylock.NAME.toml for NAME.txt. `lbx build` installs from it, without pip and without the image.
/// Versions stay where the lock has them, unless the requirements or --upgrade say otherwise.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Lock {
    #[command(flatten)]
    pub(crate) what: What,
    /// Move this package to its newest version, or all that are locked; may be given several times.
    #[arg(long, value_name = "PACKAGE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) upgrade: Vec<String>,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// What is built, or locked.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// Functions and layers; all when none is named.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// A layer from requirements, without a configuration.
    #[arg(long, requires = "requirements", conflicts_with_all = ["names", "config"])]
    pub(crate) layer: bool,
    /// A requirement file or a lock, without a configuration; may be given several times.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["names", "config"])]
    pub(crate) requirements: Vec<PathBuf>,
}

/// Where commands run: in which image, and isolated how.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The project's configuration, instead of lbx.toml here or in a folder above.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The Lambda runtime, such as python3.11.
    #[arg(long, value_name = "RUNTIME")]
    pub(crate) runtime: Option<String>,
    /// The CPU: x86_64 or arm64.
    #[arg(long, value_name = "ARCH", value_parser = architecture)]
    pub(crate) arch: Option<Architecture>,
    /// Any image, instead of the runtime's own.
    #[arg(long, value_name = "REF")]
    pub(crate) image: Option<String>,
    /// Use the image from the store, and ask no registry.
    #[arg(long)]
    pub(crate) offline: bool,
    /// The way to isolate commands and build code, instead of the strongest that works here.
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<Backend>,
    /// The least isolation that will do: full, partial or none.
    #[arg(long, value_name = "LEVEL", default_value = "partial")]
    pub(crate) require: Level,
}

/// `lbx run`.
///
/// The image is the one that `lbx build` would take, and the isolation is the same. On a terminal, the command has
/// one of its own; elsewhere its input and output are passed on byte by byte. The exit code is the command's.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) session: Session,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// What a command that is run may have; `lbx shell` has no more than that.
#[derive(Debug, Args)]
pub(crate) struct Session {
    /// Let it write to the project, which is read-only otherwise.
    #[arg(long)]
    pub(crate) write: bool,
    /// Let it have the host's network; otherwise it has none.
    #[arg(long)]
    pub(crate) network: bool,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) limits: Resources,
}

/// `lbx diff`.
///
/// Says which packages and files are in one of two zips only, which differ and from which byte on, and what else is not
/// the same. With one zip, or the name of a function or layer, it is compared with the one that it has replaced. The exit code is 0 when the zips are the same bytes, and 9 when they differ.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Diff {
    /// The zip to compare with; alone, the one to compare with what was there before it.
    #[arg(value_name = "BEFORE|NAME")]
    pub(crate) before: PathBuf,
    /// The zip to compare.
    #[arg(value_name = "AFTER")]
    pub(crate) after: Option<PathBuf>,
    /// List all packages and files that differ, however many they are.
    #[arg(long)]
    pub(crate) all: bool,
}

/// `lbx check`.
///
/// Looks at zips and folders, whoever made them, as lbx build looks at its own, and imports the handler in the image. A
/// function or layer of lbx.toml is named by its name, or by its zip in dist; with nothing named, all that are built are
/// looked at. The exit code is 8 when something will not work in Lambda, or must not be published.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Check {
    /// A zip, a folder, or a function or layer of lbx.toml.
    #[arg(value_name = "ZIP|FOLDER|NAME")]
    pub(crate) what: Vec<PathBuf>,
    /// The handler to import, such as app.handler, in place of what lbx.toml has.
    #[arg(long, value_name = "HANDLER")]
    pub(crate) handler: Option<String>,
    /// A layer that it runs with; may be given several times, in Lambda's order.
    #[arg(long = "layer", value_name = "ZIP|FOLDER")]
    pub(crate) layers: Vec<PathBuf>,
    /// Import nothing, and open no image for it.
    #[arg(long, conflicts_with = "handler")]
    pub(crate) no_import: bool,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// `lbx explain`.
///
/// Looks for a package, or a file or folder by its path in the zip or in the project, in the zips of the last build: which
/// requirement wants it, how large it is, which rule leaves it out or spares it, and what would leave it out.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Explain {
    /// A package, or a path.
    #[arg(value_name = "NAME|PATH")]
    pub(crate) what: String,
    /// Only in this function or layer; may be given several times.
    #[arg(long = "in", value_name = "NAME")]
    pub(crate) within: Vec<String>,
    /// The zip, where the build was given one.
    #[arg(short, long, value_name = "FILE", conflicts_with = "out_dir")]
    pub(crate) output: Option<PathBuf>,
    /// The folder of the zips, where the build was given one.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) place: Place,
}

/// `lbx cache`.
#[derive(Debug, Args)]
pub(crate) struct Cache {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Say how much is in the store, by kind.
    Du,
    /// Remove what was not used for longest: what is older than 30 days, unless something else is said.
    Gc(Collect),
    /// Read all that has a digest, and remove what is not what it was. The exit code is 1 when something was damaged.
    Verify(Verify),
}

/// `lbx cache gc`.
#[derive(Debug, Args)]
pub(crate) struct Collect {
    /// Remove until no more than this is left, such as 5GB.
    #[arg(long, value_name = "SIZE", value_parser = crate::limits::size)]
    pub(crate) max_size: Option<u64>,
    /// Remove what was not used for so many days: 30, or 30d.
    #[arg(long, value_name = "DAYS", value_parser = days)]
    pub(crate) older_than: Option<u32>,
    /// Only say what would go.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `lbx cache verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Only say what is damaged.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `lbx doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print the flags of `docker run` that give full isolation in a container.
    #[arg(long, conflicts_with = "kubernetes")]
    pub(crate) docker: bool,
    /// Print the smallest pod that gives full isolation.
    #[arg(long)]
    pub(crate) kubernetes: bool,
    /// Print what this machine's administrator can change so that builds are isolated, as a shell script.
    #[arg(long, conflicts_with_all = ["docker", "kubernetes"])]
    pub(crate) fix: bool,
    /// Make these changes, with sudo where needed, and look whether they helped.
    #[arg(long, requires = "fix")]
    pub(crate) apply: bool,
}

/// `lbx schema`.
#[derive(Debug, Args)]
pub(crate) struct Schema {
    /// Print that of report.json instead.
    #[arg(long)]
    pub(crate) report: bool,
}

/// `lbx pull`.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// The image, with its registry: public.ecr.aws/lambda/python:3.11.
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// The CPU: x86_64 or arm64.
    #[arg(long, value_name = "ARCH", default_value = "x86_64", value_parser = architecture)]
    pub(crate) arch: Architecture,
}

fn days(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('d').unwrap_or(text);
    number.parse().map_err(|_| "expected a number of days, such as 30 or 30d".to_owned())
}

fn architecture(text: &str) -> Result<Architecture, String> {
    Architecture::parse(text).ok_or_else(|| "there are x86_64 and arm64".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_do_not_contradict_themselves() {
        super::Arguments::command().debug_assert();
    }
}
