//! `cargo xtask equivalence`: what lbx packs, against what `pip install --target` makes of the same wheels, on forty
//! packages and sets of them.
//!
//! Every difference has to have a reason: a rule that `report.json` names for that path, or one of the few things that
//! pip makes up itself. One without a reason fails the command. All of them go to `target/equivalence.json`.

mod case;
mod reason;
mod table;
mod tree;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use lbx_testkit::index;
use serde::Serialize;

use self::case::{Case, Tools};
use self::reason::Difference;
use self::table::Table;
use crate::image::python_with_pip;
use crate::{Result, check, process, workspace};

/// What to print.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Print every difference, not only those without a reason
    #[arg(long)]
    list: bool,
    /// Compare only the packages and sets of these names
    names: Vec<String>,
}

/// What a package or a set came to.
#[derive(Serialize)]
struct Row {
    name: String,
    why: String,
    /// What was installed, with versions.
    packages: Vec<String>,
    /// What kept it from being compared at all.
    error: Option<String>,
    /// As lbx builds it when nothing is said of what to leave out.
    by_default: Option<Comparison>,
    /// With all kept that a rule would leave out.
    all_kept: Option<Comparison>,
}

/// Two trees, compared.
#[derive(Serialize)]
struct Comparison {
    /// How many files pip installs.
    files: usize,
    /// How many of these lbx has in the same place, with the same content and the same mode.
    equal: usize,
    differences: Vec<Difference>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let table = Table::read()?;
    let cases = chosen(table.cases(), &arguments.names)?;
    let folder = workspace::target()?.join("equivalence");
    let wheels = table.fetch(&folder)?;
    println!("== build lbx");
    process::run(&mut check::command(&["build", "--quiet", "--package", "lbx"]))?;
    let scratch = tempfile::tempdir()?;
    let index = index::serve(&folder);
    let tools = Tools {
        lbx: workspace::debug("lbx")?,
        python: python_with_pip()?,
        address: format!("http://{}", index.address()),
        wheels,
        scratch: scratch.path(),
    };
    println!("== compare {} packages and sets, installed by {}", cases.len(), tools.pip()?);
    let started = Instant::now();
    let rows = compare(&cases, &tools, arguments.list);
    println!("== compared in {} seconds", started.elapsed().as_secs());
    write(&workspace::target()?.join("equivalence.json"), &rows)?;
    conclude(&rows)
}

/// The cases of these names, or all.
fn chosen(mut cases: Vec<Case>, names: &[String]) -> Result<Vec<Case>> {
    if let Some(name) = names.iter().find(|name| !cases.iter().any(|case| case.name == **name)) {
        return Err(format!("{}: no package or set is `{name}`", table::path().display()).into());
    }
    cases.retain(|case| names.is_empty() || names.contains(&case.name));
    Ok(cases)
}

/// Compares all of them, as many at a time as there are cores, and prints each when it is done.
fn compare(cases: &[Case], tools: &Tools<'_>, list: bool) -> Vec<Row> {
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some((at, case)) = take(&next, cases) {
            let row = Row::new(case, case.compare(tools));
            // The lines of one case stay together because whoever has the rows prints.
            let mut rows = rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            row.print(list);
            rows.insert(at, row);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });
    rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().collect()
}

fn take<'c>(next: &AtomicUsize, cases: &'c [Case]) -> Option<(usize, &'c Case)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    cases.get(at).map(|case| (at, case))
}

fn write(path: &Path, rows: &[Row]) -> Result<()> {
    let mut text = serde_json::to_string_pretty(rows)?;
    text.push('\n');
    fs_err::write(path, text)?;
    println!("every difference is in {}", path.display());
    Ok(())
}

/// Prints the sums, and fails unless everything was compared and every difference has its reason.
fn conclude(rows: &[Row]) -> Result<()> {
    let print = |title: &str, pick: fn(&Row) -> Option<&Comparison>| {
        let all: Vec<&Comparison> = rows.iter().filter_map(pick).collect();
        println!("{title}: {}", summary(&all));
    };
    print("by default", |row| row.by_default.as_ref());
    print("all kept", |row| row.all_kept.as_ref());
    let failed = rows.iter().filter(|row| row.error.is_some()).count();
    let unexplained: usize = rows.iter().map(Row::unexplained).sum();
    if failed + unexplained == 0 {
        return Ok(());
    }
    let all = rows.len();
    Err(format!("differences without a reason: {unexplained}; not compared: {failed} of {all}").into())
}

/// How many files there are, how many of them are equal, and how many differ for each reason.
fn summary(comparisons: &[&Comparison]) -> String {
    let files: usize = comparisons.iter().map(|one| one.files).sum();
    let equal: usize = comparisons.iter().map(|one| one.equal).sum();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for difference in comparisons.iter().flat_map(|one| &one.differences) {
        *reasons.entry(difference.reason()).or_default() += 1;
    }
    let counts = [format!("{files} files"), format!("{equal} equal")].into_iter();
    let differing = reasons.iter().map(|(reason, count)| format!("{count} {reason}"));
    counts.chain(differing).collect::<Vec<_>>().join(", ")
}

impl Row {
    fn new(case: &Case, compared: Result<[Comparison; 2]>) -> Self {
        let (comparisons, error) = match compared {
            Ok([by_default, all_kept]) => ((Some(by_default), Some(all_kept)), None),
            Err(error) => ((None, None), Some(error.to_string())),
        };
        let packages = case.pins.iter().map(|pin| format!("{} {}", pin.name, pin.version)).collect();
        let (name, why) = (case.name.clone(), case.why.clone());
        Self { name, why, packages, error, by_default: comparisons.0, all_kept: comparisons.1 }
    }

    fn comparisons(&self) -> impl Iterator<Item = &Comparison> {
        self.by_default.iter().chain(&self.all_kept)
    }

    fn unexplained(&self) -> usize {
        let differences = self.comparisons().flat_map(|one| &one.differences);
        differences.filter(|difference| difference.reason.is_none()).count()
    }

    fn print(&self, list: bool) {
        println!("{}: {}", self.name, self.why);
        if let Some(error) = &self.error {
            println!("    FAIL {error}");
        }
        for (title, comparison) in ["by default", "all kept"].iter().zip(self.comparisons()) {
            println!("    {title}: {}", summary(&[comparison]));
            for difference in &comparison.differences {
                if difference.reason.is_none() {
                    println!("        FAIL {difference}");
                } else if list {
                    println!("        {difference}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::reason::{Reason, What};
    use super::*;

    fn row(error: Option<&str>, reason: Option<Reason>) -> Row {
        let differences = vec![Difference { path: "a".into(), what: What::OnlyPip, reason }];
        let comparison = Comparison { files: 3, equal: 2, differences };
        Row {
            name: "foo".into(),
            why: "it is there".into(),
            packages: vec!["foo 1".into()],
            error: error.map(str::to_owned),
            by_default: Some(comparison),
            all_kept: None,
        }
    }

    #[test]
    fn a_difference_without_a_reason_fails_the_command_and_one_with_a_reason_does_not() {
        assert!(conclude(&[row(None, Some(Reason::EntryPoint))]).is_ok());
        let error =
            conclude(&[row(None, Some(Reason::EntryPoint)), row(None, None)]).unwrap_err().to_string();
        assert_eq!(error, "differences without a reason: 1; not compared: 0 of 2");
    }

    #[test]
    fn what_could_not_be_compared_fails_the_command() {
        let error = conclude(&[row(Some("pip said no"), Some(Reason::EntryPoint))]).unwrap_err().to_string();
        assert_eq!(error, "differences without a reason: 0; not compared: 1 of 1");
    }

    #[test]
    fn a_summary_counts_by_reason() {
        let rows = [
            row(None, Some(Reason::Rule("scripts".into()))),
            row(None, None),
            row(None, Some(Reason::Shebang)),
        ];
        let all: Vec<&Comparison> = rows.iter().flat_map(Row::comparisons).collect();
        assert_eq!(summary(&all), "9 files, 6 equal, 1 WITHOUT A REASON, 1 scripts, 1 shebang");
    }

    #[test]
    fn a_name_that_the_table_does_not_have_is_an_error() {
        let cases = Table::read().unwrap().cases();
        assert_eq!(chosen(cases.clone(), &["numpy".to_owned()]).unwrap().len(), 1);
        assert_eq!(chosen(cases.clone(), &[]).unwrap().len(), cases.len());
        let error = chosen(cases, &["nmpy".to_owned()]).err().unwrap().to_string();
        assert!(error.ends_with("no package or set is `nmpy`"), "{error}");
    }
}
