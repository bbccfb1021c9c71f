//! The import of a handler, as Lambda's runtime does it: in the image, with the code at `/var/task` and layers at `/opt`,
//! without a network. What comes of it is a stranger's, and only words about it: it changes no byte of an artifact.

mod artifacts;
mod verdict;

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use lbx_plan::Runtime;
use lbx_sandbox::{Access, Bind, Spec};

pub(crate) use self::artifacts::Imports;
use self::verdict::Attempt;
use crate::base::{self, Base};
use crate::check::Finding;
use crate::error::Error;
use crate::resolve::folder;
use crate::site::Site;

/// The program that imports.
const PROGRAM: &str = include_str!("import.py");
/// The folder that it writes into.
const PLACE: &str = "/lbx/import";
/// What it writes there.
const RESULT: &str = "result.json";
/// The most bytes of the file that are read.
const LARGEST: u64 = 256 << 10;
/// How long an import may take before it is stopped. Lambda's init phase has 10 seconds, on its own machines.
const LONGEST: Duration = Duration::from_mins(1);

/// Where Lambda has code, layers and its own client; of the image where it says so itself.
const VARIABLES: [(&str, &str); 4] = [
    (
        "LD_LIBRARY_PATH",
        "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
    ),
    ("PATH", "/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin"),
    ("LAMBDA_TASK_ROOT", "/var/task"),
    ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
];

/// A function, unpacked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function<'f> {
    pub(crate) name: &'f str,
    pub(crate) handler: &'f str,
    /// The files of its zip.
    pub(crate) task: &'f Path,
    /// The files of its layers, if it has any.
    pub(crate) layers: Option<&'f Path>,
}

/// Imports the handler of a function, and says what is wrong with that. `work` is an empty folder.
pub(crate) fn import(
    site: &Site,
    base: &Base,
    function: &Function<'_>,
    work: &Path,
) -> Result<Vec<Finding>, Error> {
    let out = folder(work, "out")?;
    let spec = spec(&site.choice.runtime, base, function, &out);
    let mut limits = site.limits;
    limits.time.total = limits.time.total.min(LONGEST);
    let output = base::run_within(site, limits, &spec, None, &|_| {})?;
    let attempt = if output.ended.success() { result(&out) } else { None };
    Ok(verdict::findings(function.handler, attempt.as_ref(), &output))
}

/// What the program has left, if it is what it writes.
fn result(out: &Path) -> Option<Attempt> {
    let left = lbx_sandbox::outputs(out, |name| name == RESULT).ok()?;
    let mut text = Vec::new();
    left.first()?.file.try_clone().ok()?.take(LARGEST).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn spec(runtime: &Runtime, base: &Base, function: &Function<'_>, out: &Path) -> Spec {
    let mut spec = Spec::new(base.root.clone(), [&base.interpreter, "-c", PROGRAM, function.handler, PLACE]);
    spec.env = environment(&runtime.python, base, function);
    let bind = |source: &Path, target: &str, access| Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        access,
    };
    spec.binds.push(bind(function.task, "/var/task", Access::ReadOnly));
    spec.binds.extend(function.layers.map(|layers| bind(layers, "/opt", Access::ReadOnly)));
    spec.binds.push(bind(out, PLACE, Access::ReadWrite));
    "/var/task".clone_into(&mut spec.cwd);
    spec
}

/// The variables that a function has by itself: none of the user's, and no credentials.
fn environment(python: &str, base: &Base, function: &Function<'_>) -> Vec<(String, String)> {
    let of_image = |name: &str| base.image.config.env.iter().find(|(known, _)| known == name);
    let mut environment: Vec<(String, String)> = VARIABLES
        .iter()
        .map(|&(name, value)| of_image(name).cloned().unwrap_or_else(|| (name.to_owned(), value.to_owned())))
        .collect();
    let value = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    let (task, client) = (value("LAMBDA_TASK_ROOT"), value("LAMBDA_RUNTIME_DIR"));
    // As the image's bootstrap has it.
    let path = format!(
        "{}:/opt/python/lib/python{python}/site-packages:/opt/python:{}",
        task.map_or("/var/task", String::as_str),
        client.map_or("/var/runtime", String::as_str)
    );
    let fixed = [
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ("AWS_LAMBDA_FUNCTION_NAME", function.name),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/lbx"),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "2015/03/31/[$LATEST]00000000000000000000000000000000"),
        ("AWS_REGION", "us-east-1"),
        ("LANG", "en_US.UTF-8"),
        // What differs from run to run is nothing that a finding should depend on.
        ("PYTHONHASHSEED", "0"),
        ("PYTHONPATH", &path),
        ("TZ", ":UTC"),
        ("_HANDLER", function.handler),
    ];
    environment.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let execution = format!("AWS_Lambda_python{python}");
    environment.push(("AWS_EXECUTION_ENV".to_owned(), execution));
    environment
}
