//! Bytecode for artifacts: compiled by the image's Python, in a sandbox without a network, as it will be loaded in Lambda.
//!
//! The modules of a wheel are compiled once for each image and each place that they have in Lambda, and kept beside the
//! wheel. What the compiler program leaves is a stranger's: it is held against what was asked for, and rewritten so that
//! it depends on nothing but the values in it (`lbx_wheel::bytecode`).

mod compiled;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_archive::{Compressor, Effort};
use lbx_plan::{Bytecode, Kind};
use lbx_sandbox::{Access, Bind, Spec};
use lbx_wheel::bytecode::{
    COMPILER, COMPILER_ENVIRONMENT, COMPILER_OPTIONS, FrameError, PythonVersion, normalize,
};
use lbx_wheel::{Derived, InstalledFile, Kind as FileKind, Made, Read, Wheel, WheelError, WheelStore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::compiled::Compiled;
use crate::base::{self, Base};
use crate::builder::{Builder, cache_key};
use crate::error::Error;
use crate::resolve::{file, folder, image_error};

/// Counted up whenever the same sources come to other bytes, or what is kept of them has another form.
const FORM: &str = "bytecode-1";
/// Where the compiler program is in the sandbox, and all that it reads and writes. Its paths are relative to that, because
/// one of the ways to isolate it shows it another one.
const PLACE: &str = "/lbx/compile";
/// The modules of wheels, by the ending of their names.
const SOURCE: &str = ".py";

/// Why there is no bytecode.
#[derive(Debug, thiserror::Error)]
pub enum BytecodeError {
    /// The image's Python is none whose bytecode is known.
    #[error("the bytecode of Python {python} in {image} is not known, expected that of CPython 3.8 to 3.14")]
    Unknown {
        /// The image.
        image: String,
        /// The version of its Python.
        python: String,
    },
    /// The compiler program fails.
    #[error("the Python of {image} cannot compile ({how})")]
    Failed {
        /// The image.
        image: String,
        /// How it ended.
        how: String,
        /// What it said.
        output: String,
    },
    /// It leaves something else than what was asked for.
    #[error("what the Python of {image} has compiled cannot be read")]
    Output {
        /// The image.
        image: String,
        /// What is wrong with it.
        source: FrameError,
    },
    /// It leaves less, or something else, than what was asked for.
    #[error("the Python of {image} has not compiled what it was asked for")]
    Other {
        /// The image.
        image: String,
    },
}

/// The bytecode that an interpreter writes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Dialect {
    /// The word for it in file names, such as `cpython-311`.
    tag: String,
    /// What files begin with, in hexadecimal.
    magic: String,
}

/// Compiles for one artifact.
pub(crate) struct Compiler {
    builder: Arc<Builder>,
    dialect: Dialect,
    version: PythonVersion,
    /// Where the zip's root is in Lambda.
    root: &'static str,
    effort: Effort,
    is_only: bool,
}

/// A module to be compiled.
#[derive(Clone, Debug)]
pub(crate) struct Source<'s> {
    /// Where it is.
    pub(crate) location: &'s Path,
    /// Its path in the zip.
    pub(crate) path: &'s str,
}

/// Bytecode of the user's own.
#[derive(Clone, Debug)]
pub(crate) struct Pyc {
    /// Where it is.
    pub(crate) location: PathBuf,
    /// Its size in bytes.
    pub(crate) size: u64,
}

#[derive(Serialize)]
struct Job {
    wheels: Vec<Origin>,
    trees: Vec<Origin>,
    processes: usize,
}

#[derive(Serialize)]
struct Origin {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    out: String,
    members: Vec<Member>,
}

#[derive(Serialize)]
struct Member {
    #[serde(rename = "member")]
    name: String,
    file: String,
    cache: String,
}

impl Compiler {
    /// The compiler for an artifact, if it is to have bytecode.
    pub(crate) fn of(
        open: impl FnOnce() -> Result<Arc<Builder>, Error>,
        (kind, bytecode, effort): (Kind, Bytecode, Effort),
    ) -> Result<Option<Self>, Error> {
        if bytecode == Bytecode::Without {
            return Ok(None);
        }
        let builder = open()?;
        let (dialect, version) = known(&builder)?;
        let root = match kind {
            Kind::Function => "/var/task/",
            Kind::Layer => "/opt/",
        };
        Ok(Some(Self { builder, dialect, version, root, effort, is_only: bytecode == Bytecode::Only }))
    }

    /// Whether sources are left out that compile.
    pub(crate) fn is_only(&self) -> bool {
        self.is_only
    }

    /// Where the bytecode of a module is in the artifact.
    pub(crate) fn target(&self, path: &str) -> String {
        if self.is_only { format!("{path}c") } else { self.cache(path) }
    }

    /// Where Python looks for the bytecode of a module beside its source (PEP 3147).
    pub(crate) fn cache(&self, path: &str) -> String {
        let (folder, name) = path.rsplit_once('/').map_or(("", path), |(folder, name)| (folder, name));
        let slash = if folder.is_empty() { "" } else { "/" };
        let stem = name.strip_suffix(SOURCE).unwrap_or(name);
        format!("{folder}{slash}__pycache__/{stem}.{}.pyc", self.dialect.tag)
    }

    /// One word for all that bytecode follows from, but for the sources and their paths in the zip.
    pub(crate) fn recipe(&self) -> String {
        let base = self.builder.base();
        let (image, root) = (base.image.manifest_digest.to_string(), self.root);
        let Dialect { tag, magic } = &self.dialect;
        let effort = self.effort.recipe();
        cache_key(&[FORM, COMPILER, &image, &base.python, tag, magic, root, effort])
    }

    /// The bytecode of the modules of wheels, which lie below `prefix` in the zip.
    pub(crate) fn wheels(
        &self,
        store: &WheelStore,
        wheels: &[Arc<Wheel>],
        prefix: &str,
    ) -> Result<Vec<Derived>, Error> {
        let recipe = format!("{FORM}-{}", &cache_key(&[&self.recipe(), prefix])[..32]);
        let failed = |wheel: &Wheel, source| match source {
            WheelError::Interrupted => Error::Interrupted,
            source => Error::wheel(wheel.filename.to_string(), source),
        };
        let kept = |wheel: &Arc<Wheel>| store.kept(wheel, &recipe).map_err(|source| failed(wheel, source));
        let mut all = wheels.iter().map(kept).collect::<Result<Vec<_>, _>>()?;
        let missing: Vec<usize> = (0..wheels.len()).filter(|&at| all[at].is_none()).collect();
        if !missing.is_empty() {
            let scratch = self.scratch()?;
            let wanted: Vec<&Wheel> = missing.iter().map(|&at| &*wheels[at]).collect();
            let outputs = self.compile_wheels(&scratch.path("compile"), &wanted, prefix)?;
            for (&at, compiled) in missing.iter().zip(&outputs) {
                let derived = self.derive(store, &wheels[at], &recipe, compiled);
                all[at] = Some(derived.map_err(|source| failed(&wheels[at], source))?);
            }
        }
        Ok(all.into_iter().flatten().collect())
    }

    fn compile_wheels(&self, work: &Path, wheels: &[&Wheel], prefix: &str) -> Result<Vec<Compiled>, Error> {
        let mut binds = Vec::new();
        let mut origins = Vec::new();
        for (number, wheel) in wheels.iter().enumerate() {
            let inside = format!("wheels/{number}.whl");
            let target = format!("{PLACE}/{inside}");
            binds.push(Bind { source: wheel.path().to_owned(), target, access: Access::ReadOnly });
            let members = wheel.files.iter().filter(|file| is_module(file));
            let member = |file: &InstalledFile| self.member(&file.member, &format!("{prefix}{}", file.path));
            let (path, out) = (Some(inside), format!("out/{number}"));
            origins.push(Origin { path, root: None, out, members: members.map(member).collect() });
        }
        self.run(work, &Job { wheels: origins, trees: Vec::new(), processes: processes() }, binds)
    }

    /// Rewrites and compresses what was compiled of a wheel, and keeps it.
    fn derive(
        &self,
        store: &WheelStore,
        wheel: &Wheel,
        recipe: &str,
        compiled: &Compiled,
    ) -> Result<Derived, WheelError> {
        let make = |compressor: &mut Compressor, file: &InstalledFile, _: Read<'_>| {
            if !is_module(file) {
                return Ok(Vec::new());
            }
            let path = self.cache(&file.path);
            let Some(pyc) = self.normal(compiled.pyc(&file.member)?, &path) else { return Ok(Vec::new()) };
            let (packed, bytes) = compressor.compress(&pyc);
            Ok(vec![Made { path, packed, sha256: Sha256::digest(&pyc).into(), bytes }])
        };
        let cancel = &self.builder.context().ground.cancel;
        store.derived(wheel, recipe, &|| !cancel.is_cancelled(), || Compressor::new(self.effort), make)
    }

    /// The bytecode of own modules, in their order; none of those that do not compile. It is put into `work`.
    pub(crate) fn sources(&self, sources: &[Source<'_>], work: &Path) -> Result<Vec<Option<Pyc>>, Error> {
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let job = folder(work, "job")?;
        let mut members = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            // Links, modes and names of strangers stay outside.
            fs_err::write(job.join(number.to_string()), fs_err::read(source.location)?)?;
            members.push(self.member(&number.to_string(), source.path));
        }
        let tree = Origin { path: None, root: Some("job".to_owned()), out: "out/0".to_owned(), members };
        let job = Job { wheels: Vec::new(), trees: vec![tree], processes: processes() };
        let Some(compiled) = self.run(work, &job, Vec::new())?.pop() else { return Err(self.other()) };
        let done = folder(work, "pyc")?;
        let write = |(number, source): (usize, &Source<'_>)| {
            let Some(pyc) = self.normal(compiled.pyc(&number.to_string())?, source.path) else {
                return Ok(None);
            };
            let location = done.join(number.to_string());
            fs_err::write(&location, &pyc)?;
            Ok(Some(Pyc { location, size: pyc.len() as u64 }))
        };
        sources.iter().enumerate().map(write).collect()
    }

    fn member(&self, member: &str, path: &str) -> Member {
        let file = format!("{}{path}", self.root);
        Member { name: member.to_owned(), file, cache: self.cache(path) }
    }

    /// Runs the compiler program, and reads what it leaves, for each wheel and tree.
    fn run(&self, work: &Path, job: &Job, mut binds: Vec<Bind>) -> Result<Vec<Compiled>, Error> {
        let base = self.builder.base();
        let (inside, out) = (folder(work, "job")?, folder(work, "out")?);
        // Strings and numbers alone: nothing that could fail.
        fs_err::write(inside.join("job.json"), serde_json::to_vec(job).unwrap_or_default())?;
        let bind = |source: &Path, name: &str, access| {
            let target = format!("{PLACE}/{name}");
            Bind { source: source.to_owned(), target, access }
        };
        binds.push(bind(&inside, "job", Access::ReadOnly));
        binds.push(bind(&out, "out", Access::ReadWrite));
        let output = base::run(self.builder.site(), &spec(base, binds), None, &|_| {})?;
        let image = self.image();
        if !output.ended.success() {
            let how = base::how(&output.ended);
            return Err(BytecodeError::Failed { image, how, output: output.text }.into());
        }
        let left = lbx_sandbox::outputs(&out, |name| name.parse::<usize>().is_ok())?;
        let origins = job.wheels.iter().chain(&job.trees);
        let find = |origin: &Origin| {
            let name = origin.out.rsplit('/').next()?;
            left.iter().find(|left| left.name == name).and_then(|left| left.file.try_clone().ok())
        };
        origins.map(|origin| self.read(find(origin), &origin.members)).collect()
    }

    fn read(&self, file: Option<File>, members: &[Member]) -> Result<Compiled, Error> {
        let file = file.ok_or_else(|| self.other())?;
        let asked = members.iter().map(|member| (member.name.as_str(), member.cache.as_str()));
        let compiled = Compiled::read(file, asked)
            .map_err(|source| BytecodeError::Output { image: self.image(), source })?;
        compiled.ok_or_else(|| self.other())
    }

    /// What the interpreter wrote, in the form that depends on nothing but the values in it.
    fn normal(&self, pyc: Option<Vec<u8>>, path: &str) -> Option<Vec<u8>> {
        let pyc = pyc?;
        if pyc.get(..4).map(hex::encode).as_ref() != Some(&self.dialect.magic) {
            tracing::warn!(path, "the bytecode is of another interpreter, and left out");
            return None;
        }
        let normal = normalize(&pyc, self.version);
        normal.inspect_err(|why| tracing::warn!(path, %why, "the bytecode is left out")).ok()
    }

    fn scratch(&self) -> Result<lbx_image::Scratch, Error> {
        let context = self.builder.context();
        context.ground.store.scratch().map_err(|source| image_error(context, source))
    }

    fn image(&self) -> String {
        self.builder.context().plan.image.clone()
    }

    fn other(&self) -> Error {
        BytecodeError::Other { image: self.image() }.into()
    }
}

impl From<BytecodeError> for Error {
    fn from(error: BytecodeError) -> Self {
        Self::Bytecode(Box::new(error))
    }
}

/// Whether a file is a module that Python compiles when it is imported.
pub(crate) fn is_module(file: &InstalledFile) -> bool {
    file.kind == FileKind::Module && file.path.ends_with(SOURCE)
}

/// Whether a file of the user's own is one.
pub(crate) fn is_source(path: &str) -> bool {
    path.ends_with(SOURCE)
}

/// The dialect of the image's Python, if it is one that is known.
fn known(builder: &Builder) -> Result<(Dialect, PythonVersion), Error> {
    let Base { python, dialect, .. } = builder.base();
    let numbers: Vec<u8> = python.split('.').map_while(|number| number.parse().ok()).collect();
    match (dialect, numbers.as_slice()) {
        (Some(dialect), [3, minor @ 8..=14, ..]) if dialect.tag == format!("cpython-3{minor}") => {
            Ok((dialect.clone(), PythonVersion(3, *minor)))
        }
        _ => {
            let image = builder.context().plan.image.clone();
            Err(BytecodeError::Unknown { image, python: python.clone() }.into())
        }
    }
}

fn spec(base: &Base, binds: Vec<Bind>) -> Spec {
    let (program, job) = (format!("{PLACE}/compile.py"), format!("{PLACE}/job/job.json"));
    let words = [base.interpreter.as_str()].into_iter().chain(COMPILER_OPTIONS).chain([&*program, &*job]);
    let mut spec = Spec::new(base.root.clone(), words.map(str::to_owned));
    spec.env = base::environment(&base.image);
    spec.env.retain(|(name, _)| !name.starts_with("PYTHON"));
    spec.env.extend(COMPILER_ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())));
    PLACE.clone_into(&mut spec.cwd);
    spec.files.push(file(program, COMPILER.as_bytes().to_vec()));
    spec.binds = binds;
    spec
}

fn processes() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
