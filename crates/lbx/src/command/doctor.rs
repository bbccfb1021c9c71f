//! `lbx doctor`: can this host build, and if not, why and what to do.

use std::path::{Path, PathBuf};

use lbx_sandbox::{Backend, Claims, Keeper, Launcher, Level};
use serde_json::{Value, json};

use crate::arguments::{Arguments, Doctor};
use crate::diagnosis::{denied_backend, finding_json, finding_lines};
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
    match try_run(&output, doctor, environment) {
        Ok(code) => code,
        Err(failure) => output.failure(&failure),
    }
}

fn try_run(output: &Output, doctor: &Doctor, environment: &Environment) -> Result<u8, Failure> {
    if doctor.fix {
        return super::fix::run(output, doctor.apply, environment);
    }
    let store = super::cache_dir(environment)?;
    let store_problem = store_problem(&store);
    // Stacking layers is tried in the store; where there is none, its failure would say nothing of overlayfs.
    let probe_at = store_problem.is_none().then_some(store.as_path());
    let diagnosis = super::launcher(environment).diagnose(probe_at).map_err(lbx_build::Error::from)?;
    let backends = Backends(survey(&super::launcher(environment), &store, store_problem.is_none()));
    let chosen = backends.chosen();
    let code = match (chosen, &store_problem, &environment.ca_bundle) {
        (None, _, _) => exit::SANDBOX,
        (Some(_), Some(_), _) | (Some(_), _, Err(_)) => exit::SYSTEM,
        (Some(_), None, Ok(_)) => exit::SUCCESS,
    };
    let usable = code == exit::SUCCESS;
    output.json(&json!({
        "reason": "doctor", "usable": usable, "backend": chosen.map(|(backend, _)| backend),
        "diagnosis": diagnosis.findings.iter().map(finding_json).collect::<Vec<_>>(), "backends": backends.json(),
        "store": {"path": store, "problem": store_problem}, "ca_bundle": environment.ca_bundle.as_ref().ok(),
        "ca_problem": environment.ca_bundle.as_ref().err(), "limits": Keeper::of_this_process(),
    }));
    for line in diagnosis.findings.iter().flat_map(finding_lines).chain(backends.lines()) {
        output.result(&line);
    }
    output.result(match Keeper::of_this_process() {
        Keeper::Group => "ok      limits on memory and processes: cgroup",
        Keeper::Process => "ok      limits on memory and processes: per process",
    });
    output.result(&match &store_problem {
        None => format!("ok      store: {}", store.display()),
        Some(problem) => format!("denied  store: {}: {problem}", store.display()),
    });
    output.result(&ca_line(&environment.ca_bundle));
    output.result(if usable { "lbx can build on this host." } else { "lbx cannot build on this host." });
    Ok(code)
}

/// Every way to isolate builds, strongest first, with what it promises here or why it does not work.
struct Backends(Vec<(Backend, Result<Claims, lbx_sandbox::Error>)>);

/// Tries them all. Without a store, the self-tests have the folder for temporary files.
fn survey(
    launcher: &Launcher,
    store: &Path,
    writable: bool,
) -> Vec<(Backend, Result<Claims, lbx_sandbox::Error>)> {
    let scratch =
        writable.then(|| lbx_image::Store::open(store).and_then(|store| store.scratch()).ok()).flatten();
    let directory = scratch.as_ref().map(|scratch| scratch.path("doctor"));
    let directory = directory.filter(|directory| fs_err::create_dir(directory).is_ok());
    launcher.survey(directory.as_deref().unwrap_or(Path::new("/tmp")))
}

impl Backends {
    /// The one that builds use, unless they are told otherwise.
    fn chosen(&self) -> Option<(Backend, Claims)> {
        let works = self.0.iter().filter_map(|(backend, found)| Some((*backend, *found.as_ref().ok()?)));
        works.into_iter().find(|(_, claims)| claims.level() >= Level::Partial)
    }

    fn lines(&self) -> Vec<String> {
        let chosen = self.chosen();
        let mut lines = Vec::new();
        for (backend, found) in &self.0 {
            match found {
                Err(why) => lines.push(denied_backend(*backend, &failure::chain(why))),
                Ok(claims) if claims.level() == Level::None => {
                    lines.push(format!(
                        "weak    backend {backend}: builds are isolated by it only with --require none"
                    ));
                }
                Ok(claims) if chosen.is_some_and(|(chosen, _)| chosen == *backend) => {
                    lines.push(format!(
                        "ok      backend {backend}: {} isolation; builds use it",
                        claims.level()
                    ));
                    let missing = claims.list().into_iter().filter(|(_, holds)| !holds);
                    lines.extend(missing.map(|(promise, _)| format!("        not promised: {promise}")));
                }
                Ok(claims) => lines.push(format!("ok      backend {backend}: {} isolation", claims.level())),
            }
        }
        if chosen.is_none() {
            lines.push("denied  isolation: none of the ways to isolate build code works".to_owned());
        }
        lines
    }

    fn json(&self) -> Vec<Value> {
        let backend = |(backend, found): &(Backend, Result<Claims, lbx_sandbox::Error>)| match found {
            Ok(claims) => {
                json!({"backend": backend, "works": true, "level": claims.level(), "claims": claims})
            }
            Err(why) => json!({"backend": backend, "works": false, "why": failure::chain(why)}),
        };
        self.0.iter().map(backend).collect()
    }
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
