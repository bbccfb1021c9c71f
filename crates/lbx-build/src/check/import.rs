//! Whether a handler can be imported: by the image's Python, in the sandbox, with the zip where Lambda has it, its layers,
//! and no network.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use lbx_plan::{Artifact, ImportCheck, Kind};
use lbx_sandbox::{Access, Bind, Spec};
use serde::Deserialize;

use super::{Check, Finding, Severity};
use crate::base::{self, Base};
use crate::builder::Builder;
use crate::engine::Context;
use crate::error::Error;
use crate::publish::Staging;
use crate::resolve::{folder, image_error};
use crate::tree;
use crate::workshop::Workshop;

const PROGRAM: &str = include_str!("import.py");
/// What the runtime has in its environment. Neither a function's own variables nor any login are known here.
const ENVIRONMENT: [(&str, &str); 10] = [
    ("AWS_DEFAULT_REGION", "us-east-1"),
    ("AWS_EXECUTION_ENV", "AWS_Lambda_lbx"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
    ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
    ("AWS_REGION", "us-east-1"),
    ("LAMBDA_TASK_ROOT", "/var/task"),
    ("LANG", "en_US.UTF-8"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("TZ", ":UTC"),
];
/// Where the runtime is, and where libraries are looked for.
const RUNTIME: &str = "/var/runtime";
const LIBRARIES: &str =
    "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib";
/// How long it may take. Lambda gives it ten seconds, on a slower machine.
const SECONDS: &str = "30";
/// The file with the answer, and the most bytes that it has.
const ANSWER: &str = "answer";
const LARGEST_ANSWER: u64 = 1 << 20;

#[derive(Deserialize)]
struct Answer {
    what: String,
    text: String,
}

/// Imports an artifact's handler, if it has one and that is to be done.
pub(crate) fn import(
    workshop: &Workshop,
    artifact: &Artifact,
    staging: &Staging,
) -> Result<Option<Finding>, Error> {
    let context = workshop.context();
    let wanted = match context.plan.import {
        ImportCheck::Never => false,
        // Nothing is fetched for it.
        ImportCheck::Auto => workshop.opened().is_some(),
        ImportCheck::Always => true,
    };
    let Some(handler) = artifact.handler.as_ref().filter(|_| wanted && context.options.check) else {
        return Ok(None);
    };
    if context.plan.arch != context.build_arch || artifact.kind != Kind::Function {
        return Ok(None);
    }
    let scratch = context.ground.store.scratch().map_err(|source| image_error(context, source))?;
    let work = scratch.path("import");
    let (task, opt, out) = (folder(&work, "task")?, folder(&work, "opt")?, folder(&work, "out")?);
    staging.read_zip(&artifact.name, |zip| tree::unpack(context, zip, &task))?;
    for layer in &artifact.layers {
        if !unpack_layer(context, layer, staging, &opt)? {
            tracing::debug!(function = artifact.name, layer, "not imported: the layer is not here");
            return Ok(None);
        }
    }
    let builder = workshop.builder()?;
    let spec = spec(&builder, handler, &artifact.name, [(&task, "/var/task"), (&opt, "/opt")], &out);
    let output = base::run(builder.site(), &spec, None, &|_| {})?;
    let answer = read(&out)?;
    Ok(match answer {
        Some(answer) => finding(handler, &answer),
        None => Some(ended(handler, &base::how(&output.ended), &output.text)),
    })
}

/// Unpacks a layer of this project over those that came before: as it was built now, or before.
fn unpack_layer(context: &Context, layer: &str, staging: &Staging, opt: &Path) -> Result<bool, Error> {
    let is_built = context.plan.artifacts.iter().any(|artifact| artifact.name == layer);
    if is_built {
        staging.read_zip(layer, |zip| tree::unpack(context, zip, opt))?;
        return Ok(true);
    }
    let Ok(zip) = fs_err::File::open(context.options.destination.zip(layer)) else { return Ok(false) };
    tree::unpack(context, zip.file(), opt)?;
    Ok(true)
}

fn spec(
    builder: &Builder,
    handler: &str,
    function: &str,
    folders: [(&std::path::PathBuf, &str); 2],
    out: &Path,
) -> Spec {
    let base = builder.base();
    let answer = format!("/lbx/out/{ANSWER}");
    let words = [base.interpreter.as_str(), "-c", PROGRAM, handler, &answer, SECONDS];
    let mut spec = Spec::new(base.root.clone(), words.map(str::to_owned));
    spec.env = environment(base, handler, function);
    "/var/task".clone_into(&mut spec.cwd);
    let bind = |source: &Path, target: &str, access| {
        let (source, target) = (source.to_owned(), target.to_owned());
        Bind { source, target, access }
    };
    spec.binds.extend(folders.map(|(source, target)| bind(source, target, Access::ReadOnly)));
    spec.binds.push(bind(out, "/lbx/out", Access::ReadWrite));
    spec
}

fn environment(base: &Base, handler: &str, function: &str) -> Vec<(String, String)> {
    let minor: Vec<&str> = base.python.split('.').take(2).collect();
    let packages = format!("/opt/python/lib/python{}/site-packages", minor.join("."));
    let path = ["/var/task", &packages, "/opt/python", RUNTIME].join(":");
    let mut environment = base::environment(&base.image);
    let named: Vec<(&str, &str)> = ENVIRONMENT
        .into_iter()
        .chain([
            ("AWS_LAMBDA_FUNCTION_NAME", function),
            ("LAMBDA_RUNTIME_DIR", RUNTIME),
            ("LD_LIBRARY_PATH", LIBRARIES),
            ("PYTHONPATH", &path),
            ("_HANDLER", handler),
        ])
        .collect();
    environment.retain(|(name, _)| !name.starts_with("LC_") && named.iter().all(|(other, _)| name != other));
    environment.extend(named.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    environment
}

/// What the program has written, if it has come that far. It is the work of whatever was imported.
fn read(out: &Path) -> Result<Option<Answer>, Error> {
    let Some(output) = lbx_sandbox::outputs(out, |name| name == ANSWER)?.pop() else { return Ok(None) };
    let mut text = Vec::new();
    File::take(output.file, LARGEST_ANSWER).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).ok())
}

fn finding(handler: &str, answer: &Answer) -> Option<Finding> {
    let text = answer.text.trim_end();
    let last = text.lines().last().unwrap_or_default();
    let (severity, message, hint) = match answer.what.as_str() {
        "imported" => return None,
        "builtin" => (
            Severity::Error,
            format!("the handler `{handler}` is in `{text}`, which is a module of Python itself"),
            "rename the module",
        ),
        "missing" => (
            Severity::Error,
            format!("the module of the handler `{handler}` has no `{text}`"),
            "the handler is `module.function`",
        ),
        "no-function" => (
            Severity::Error,
            format!("`{text}` of the handler `{handler}` cannot be called"),
            "the handler is `module.function`",
        ),
        "import" => (
            Severity::Error,
            format!("the handler `{handler}` cannot be imported: {last}"),
            "what it imports is in its zip, in its layers, or in the runtime",
        ),
        _ => (
            Severity::Warning,
            format!("the handler `{handler}` raises when it is imported: {last}"),
            "here it has no network and none of the function's own variables; if it needs them, \
             `[check] import = false` leaves this out",
        ),
    };
    let details = text.contains('\n').then(|| text.to_owned());
    Some(Finding { details, ..Finding::new(severity, Check::Import, message).with_hint(hint) })
}

/// It has ended Python, or was ended.
fn ended(handler: &str, how: &str, output: &str) -> Finding {
    let message = format!("Python ends when the handler `{handler}` is imported ({how})");
    let details = Some(output.trim_end().to_owned()).filter(|output| !output.is_empty());
    let hint =
        format!("it has {SECONDS} seconds here, and no network; `[check] import = false` leaves this out");
    Finding { details, ..Finding::new(Severity::Warning, Check::Import, message).with_hint(hint) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(what: &str, text: &str) -> Option<Finding> {
        finding("app.handler", &Answer { what: what.to_owned(), text: text.to_owned() })
    }

    #[test]
    fn what_will_fail_in_lambda_is_an_error_and_what_may_be_for_want_of_a_variable_is_none() {
        assert_eq!(found("imported", ""), None);
        let severity = |what: &str| found(what, "x").map(|finding| finding.severity);
        for what in ["builtin", "missing", "no-function", "import"] {
            assert_eq!(severity(what), Some(Severity::Error), "{what}");
        }
        assert_eq!(severity("raised"), Some(Severity::Warning));
        assert_eq!(severity("what nobody has said"), Some(Severity::Warning));
    }

    #[test]
    fn the_last_line_of_a_traceback_is_the_message() {
        let text = "  File \"/var/task/app.py\", line 1, in <module>\n    import x\nModuleNotFoundError: No module named 'x'\n";
        let found = found("import", text).unwrap();
        let expected =
            "the handler `app.handler` cannot be imported: ModuleNotFoundError: No module named 'x'";
        assert_eq!((found.message.as_str(), found.details.as_deref()), (expected, Some(text.trim_end())));
    }
}
