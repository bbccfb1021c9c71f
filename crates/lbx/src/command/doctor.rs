//! `lbx doctor`: can this host build, and if not, why and what to do.

use std::path::{Path, PathBuf};

use lbx_sandbox::{Chosen, Diagnosis, Finding, Launcher, Level, Outcome};
use serde_json::json;

use crate::arguments::{Arguments, Doctor};
use crate::environment::Environment;
use crate::failure::{self, Failure};
use crate::render::Output;
use crate::{exit, render};

/// What Docker's defaults deny: namespaces and mounts, twice, and a /proc of one's own. Podman calls the last one
/// `unmask=ALL`.
const DOCKER: &str = "--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined";

/// The same for a pod; with users of its own, `procMount` is allowed, and its root is nobody on the node.
const KUBERNETES: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: lbx
spec:
  hostUsers: false
  containers:
    - name: lbx
      image: IMAGE
      securityContext:
        procMount: Unmasked
        seccompProfile:
          type: Unconfined
        appArmorProfile:
          type: Unconfined
";

/// Tries everything a build needs of this host, and reports.
pub(crate) fn run(arguments: &Arguments, doctor: &Doctor, environment: &Environment) -> u8 {
    let output = Output::new(arguments);
    for (wanted, text) in [(doctor.docker, DOCKER), (doctor.kubernetes, KUBERNETES)] {
        if wanted {
            output.result(text.trim_end());
            return exit::SUCCESS;
        }
    }
    match try_run(&output, environment) {
        Ok(code) => code,
        Err(failure) => output.failure(&failure),
    }
}

fn try_run(output: &Output, environment: &Environment) -> Result<u8, Failure> {
    let store = super::cache_dir(environment)?;
    let store_problem = store_problem(&store);
    // Stacking layers is tried in the store; where there is none, its failure would say nothing of overlayfs.
    let probe_at = store_problem.is_none().then_some(store.as_path());
    let diagnosis = Launcher::current_exe().diagnose(probe_at).map_err(lbx_build::Error::from)?;
    let backend = backend(&store, store_problem.is_none());
    let code = match (&backend, &store_problem, &environment.ca_bundle) {
        (Err(_), _, _) => exit::SANDBOX,
        (Ok(_), Some(_), _) | (Ok(_), _, Err(_)) => exit::SYSTEM,
        (Ok(_), None, Ok(_)) => exit::SUCCESS,
    };
    let usable = code == exit::SUCCESS;
    output.json(&json!({
        "reason": "doctor", "usable": usable, "diagnosis": diagnosis, "backend": backend_json(&backend),
        "store": {"path": store, "problem": store_problem}, "ca_bundle": environment.ca_bundle.as_ref().ok(),
        "ca_problem": environment.ca_bundle.as_ref().err(),
    }));
    for finding in &diagnosis.findings {
        for line in finding_lines(finding) {
            output.result(&line);
        }
    }
    for line in backend_lines(&backend) {
        output.result(&line);
    }
    output.result(&match &store_problem {
        None => format!("ok      store: {}", store.display()),
        Some(problem) => format!("denied  store: {}: {problem}", store.display()),
    });
    output.result(&ca_line(&environment.ca_bundle));
    output.result(if usable { "lbx can build on this host." } else { "lbx cannot build on this host." });
    Ok(code)
}

/// How builds will be isolated. Without a store, the self-tests have the folder for temporary files.
fn backend(store: &Path, writable: bool) -> Result<Chosen, lbx_sandbox::Error> {
    let scratch =
        writable.then(|| lbx_image::Store::open(store).and_then(|store| store.scratch()).ok()).flatten();
    let directory = scratch.as_ref().map(|scratch| scratch.path("doctor"));
    let directory = directory.filter(|directory| fs_err::create_dir(directory).is_ok());
    let directory = directory.as_deref().unwrap_or(Path::new("/tmp"));
    Launcher::current_exe().choose(None, Level::Partial, directory)
}

fn backend_json(backend: &Result<Chosen, lbx_sandbox::Error>) -> serde_json::Value {
    match backend {
        Ok(Chosen { backend, claims, refused }) => {
            let refused: Vec<_> =
                refused.iter().map(|(name, why)| json!({"name": name, "why": why.to_string()})).collect();
            json!({"name": backend, "level": claims.level(), "claims": claims, "refused": refused})
        }
        Err(error) => json!({"problem": error.to_string()}),
    }
}

fn backend_lines(backend: &Result<Chosen, lbx_sandbox::Error>) -> Vec<String> {
    let Ok(Chosen { backend, claims, refused }) = backend else {
        return vec!["denied  isolation: none of the ways to isolate build code works".to_owned()];
    };
    let mut lines: Vec<_> = refused
        .iter()
        .map(|(name, why)| format!("denied  backend {name}: {}", render::printable(&why.to_string())))
        .collect();
    lines.push(format!("ok      backend {backend}: {} isolation", claims.level()));
    let missing = claims.list().into_iter().filter(|(_, holds)| !holds);
    lines.extend(missing.map(|(promise, _)| format!("        not promised: {promise}")));
    lines
}

/// What a diagnosis found wrong, as lines for an error.
pub(crate) fn problems(diagnosis: &Diagnosis) -> Vec<String> {
    diagnosis
        .findings
        .iter()
        .filter(|finding| matches!(finding.outcome, Outcome::Denied(_)))
        .flat_map(finding_lines)
        .collect()
}

fn finding_lines(finding: &Finding) -> Vec<String> {
    let mark = match finding.outcome {
        Outcome::Allowed => "ok     ",
        Outcome::Denied(_) => "denied ",
        Outcome::NotTried => "skipped",
    };
    // The mark says how it went; the finding need not say it again.
    let text = match finding.outcome {
        Outcome::Denied(_) => finding.to_string().replacen(": denied: ", ": ", 1),
        Outcome::Allowed | Outcome::NotTried => finding.layer.to_string(),
    };
    let mut lines = vec![format!("{mark} {}", render::printable(&text))];
    if let Some(fix) = &finding.fix {
        lines.push(format!("        fix: {}", render::printable(fix)));
    }
    lines
}

fn ca_line(bundle: &Result<Option<PathBuf>, String>) -> String {
    match bundle {
        Err(problem) => format!("denied  certificates: {}", render::printable(problem)),
        Ok(Some(path)) => format!("ok      certificates: {}", path.display()),
        Ok(None) => {
            "note    certificates: no CA bundle found; set SSL_CERT_FILE if pip cannot verify its index"
                .to_owned()
        }
    }
}

/// Why the store cannot be written to, found by writing to it.
fn store_problem(store: &Path) -> Option<String> {
    let written = lbx_image::Store::open(store).and_then(|store| store.scratch());
    written.err().map(|error| failure::chain(&error))
}
