//! Whether `lbx build` has anything to do: the same question as before, with nothing changed that the answer followed from,
//! needs no answer.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use lbx_build::{Basis, Start};
use serde_json::{Value, json};

use super::{cache_dir, project};
use crate::arguments::Build;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::render::{Output, count, short_path};

/// What is remembered of builds, and what is asked now.
pub(super) struct Memory {
    pub(super) cache_dir: PathBuf,
    /// All that a build follows from and that is in no file of the project; none when it must be built in any case.
    question: Option<Vec<String>>,
    config: Option<PathBuf>,
}

impl Memory {
    pub(super) fn of(build: &Build, environment: &Environment) -> Result<Self, Failure> {
        let cache_dir = cache_dir(environment)?;
        let has_project = !build.what.layer && build.what.requirements.is_empty();
        let config = if has_project { project::find(&build.place, environment)? } else { None };
        let is_new = build.rebuild || build.from.is_some() || build.html.is_some() || build.dir.is_some();
        let question = (!is_new).then(|| question(build, environment, config.as_ref())).flatten();
        Ok(Self { cache_dir, question, config })
    }

    /// Shows the zips of the last build, if this one would come to the same. Returns whether it would.
    pub(super) fn show_unchanged(&self, output: &Output, environment: &Environment) -> bool {
        let Some(question) = &self.question else { return false };
        let Some(unchanged) = lbx_build::unchanged(&self.cache_dir, question) else { return false };
        let found = match unchanged.findings {
            0 => String::new(),
            number => format!("; its report has {}", count(number, "finding")),
        };
        output.note(&format!("nothing has changed since the last build{found}"));
        for zip in &unchanged.zips {
            output.result(&short_path(zip, &environment.current_dir));
        }
        for report in &unchanged.reports {
            let text = fs_err::read_to_string(report).unwrap_or_default();
            let report: Value = serde_json::from_str(&text).unwrap_or_default();
            output.json(&json!({"reason": "finished", "unchanged": true, "report": report}));
        }
        true
    }

    /// Remembers what has been built, unless there was more to it than files.
    pub(super) fn remember(&self, start: Start, bases: &[Basis]) {
        let more: Vec<PathBuf> = self.config.iter().cloned().collect();
        if let Some(question) = &self.question {
            lbx_build::remember(&self.cache_dir, question, start, &more, bases);
        }
    }
}

fn question(build: &Build, environment: &Environment, config: Option<&PathBuf>) -> Option<Vec<String>> {
    let program = fs_err::metadata(&environment.program).ok()?;
    let program =
        [program.ino(), program.size(), program.mtime().unsigned_abs(), program.mtime_nsec().unsigned_abs()];
    // With a configuration, it makes no difference where in the project the user is.
    let place = config.unwrap_or(&environment.current_dir);
    let absolute = |path: &PathBuf| environment.current_dir.join(path);
    let question: Value = json!([
        env!("CARGO_PKG_VERSION"),
        program,
        place,
        config.is_some(),
        build.what.names,
        build.what.layer,
        build.what.requirements,
        build.output.as_ref().map(absolute),
        build.out_dir.as_ref().map(absolute),
        build.locked,
        build.no_check,
        build.place.runtime,
        build.place.arch,
        build.place.image,
        build.place.offline,
        format!("{:?} {:?}", build.place.backend, build.place.require),
        environment.source_date_epoch,
    ]);
    Some(vec![question.to_string()])
}
