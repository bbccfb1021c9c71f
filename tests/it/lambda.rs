//! Lambda as far as a handler sees it: the image's root, the code at `/var/task`, layers at `/opt`, and the
//! algorithm of the runtime's bootstrap. Also the image's own pip, as the oracle for installed trees.

use std::io::Read;
use std::path::{Path, PathBuf};

use lbx_image::{Image, Platform, PullOptions, Reference, Store};
use lbx_sandbox::{Access, Bind, Launcher, Overlay, Root, Spec, Streams};

use crate::support::{LBX, shared_store};

/// What the runtime does with a handler: split at the last dot, slashes are dots, import, get.
const CALL: &str = r#"
import importlib, json, os, sys
sys.path[:0] = ["/var/task", "/opt/python", "/opt/python/lib/python3.11/site-packages"]
module, name = sys.argv[1].rsplit(".", 1)
function = getattr(importlib.import_module(module.replace("/", ".")), name)
if sys.argv[2] == "null":
    print(json.dumps(callable(function)))
else:
    print(json.dumps(function(json.loads(sys.argv[2]), None)))
"#;

/// Calls a handler with an event, or only imports it when there is none, and returns what it returned.
pub(crate) fn call(
    image: &str,
    task: &Path,
    opt: Option<&Path>,
    handler: &str,
    event: Option<&serde_json::Value>,
) -> serde_json::Value {
    let event = event.map_or("null".to_owned(), ToString::to_string);
    let mut spec = python(image, &["-s", "-c", CALL, handler, &event]);
    let layers = opt.map(|opt| (opt, "/opt"));
    for (source, target) in [(task, "/var/task")].into_iter().chain(layers) {
        let (source, target) = (source.to_owned(), target.to_owned());
        spec.binds.push(Bind { source, target, access: Access::ReadOnly });
    }
    spec.env.push(("LAMBDA_TASK_ROOT".to_owned(), "/var/task".to_owned()));
    spec.env.push(("SLACK_TOKEN".to_owned(), "token".to_owned()));
    "/var/task".clone_into(&mut spec.cwd);
    serde_json::from_str(output(&spec).lines().last().unwrap_or_default()).expect("JSON")
}

/// Installs wheels into `target` as `pip install --target` does.
pub(crate) fn pip_install(image: &str, wheels: &Path, names: &[String], target: &Path) {
    let mut arguments = vec!["-m", "pip", "install", "--no-deps", "--no-index", "--no-compile", "--no-input"];
    arguments.extend(["--no-cache-dir", "--disable-pip-version-check", "--quiet", "--target", "/lbx/out"]);
    let paths: Vec<String> = names.iter().map(|name| format!("/lbx/wheels/{name}")).collect();
    arguments.extend(paths.iter().map(String::as_str));
    let mut spec = python(image, &arguments);
    let bind = |source: &Path, target: &str, access| Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        access,
    };
    spec.binds.push(bind(wheels, "/lbx/wheels", Access::ReadOnly));
    spec.binds.push(bind(target, "/lbx/out", Access::ReadWrite));
    spec.env.push(("PIP_ROOT_USER_ACTION".to_owned(), "ignore".to_owned()));
    output(&spec);
}

/// The image's Python with these arguments.
fn python(image: &str, arguments: &[&str]) -> Spec {
    let image = stored(image);
    let argv = [&["/var/lang/bin/python3.11"], arguments].concat();
    let mut spec = Spec::new(root(&image), argv);
    spec.env.clone_from(&image.config.env);
    spec.env.push(("HOME".to_owned(), "/home/lbx".to_owned()));
    spec.env.push(("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned()));
    spec
}

fn root(image: &Image) -> Root {
    let launcher = Launcher::program(LBX);
    let overlay = launcher.overlay_supported(shared_store()).expect("an answer");
    if image.overlay_ready() && matches!(overlay, Overlay::Supported) {
        return Root::Layers(image.layer_trees().into_iter().map(PathBuf::from).collect());
    }
    let store = Store::open(shared_store()).expect("the store");
    Root::Tree(lbx_image::flatten(&store, image).expect("one tree"))
}

/// The image as the store has it: no registry is asked.
fn stored(image: &str) -> Image {
    let store = Store::open(shared_store()).expect("the store");
    let reference = Reference::parse(image).expect("a reference");
    let options = PullOptions { offline: true, ..PullOptions::new(Platform::linux("amd64")) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(lbx_image::pull(&store, &reference, &options, &|_| {})).expect("the image")
}

/// The output of a command that must succeed.
fn output(spec: &Spec) -> String {
    let mut running = Launcher::program(LBX).spawn(spec, Streams::piped()).expect("a sandbox");
    let (mut out, mut err) = (running.take_stdout().expect("stdout"), running.take_stderr().expect("stderr"));
    let messages = std::thread::spawn(move || {
        let mut text = String::new();
        err.read_to_string(&mut text).expect("UTF-8");
        text
    });
    let mut text = String::new();
    out.read_to_string(&mut text).expect("UTF-8");
    let exit = running.wait().expect("an end");
    let messages = messages.join().expect("the reader");
    assert!(exit.success(), "{:?}\n{text}\n{messages}", spec.argv);
    text
}
