//! `lbx diff`: in what two zips differ, most important first.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use lbx_build::{
    ChangedFile, Content, Difference, FileChanges, Mode, PREVIOUS, PackageChanges, Pair, ZipFile, ZipLimits,
    bytes,
};
use serde_json::json;

use crate::arguments::{Arguments, Diff};
use crate::environment::Environment;
use crate::exit;
use crate::failure::Failure;
use crate::render::{Output, count, one_line, short_path};

/// How many packages, and how many files, are listed unless all are asked for.
const LISTED: usize = 50;

/// Compares the zips, and prints what differs.
pub(crate) fn run(arguments: &Arguments, diff: &Diff, environment: &Environment) -> u8 {
    let output = Output::new(arguments);
    match try_run(&output, diff, environment) {
        Ok(code) => code,
        Err(failure) => output.failure(&failure),
    }
}

fn try_run(output: &Output, diff: &Diff, environment: &Environment) -> Result<u8, Failure> {
    let absolute = |path: &Path| environment.current_dir.join(path);
    let (before, after) = match &diff.after {
        Some(after) => (absolute(&diff.before), absolute(after)),
        None => with_previous(diff, environment)?,
    };
    let difference = lbx_build::diff(&before, &after, &ZipLimits::default())?;
    let [before, after] = [before, after].map(|path| short_path(&path, &environment.current_dir));
    output.json(&json!({"reason": "diff", "before": before, "after": after, "difference": difference}));
    let limit = if diff.all { usize::MAX } else { LISTED };
    for line in lines(&difference, limit) {
        output.result(&line);
    }
    Ok(if difference.same { exit::SUCCESS } else { exit::DIFFERENT })
}

/// The zip that one named has replaced, and that one: by its path, or by the name of its function or layer.
fn with_previous(diff: &Diff, environment: &Environment) -> Result<(PathBuf, PathBuf), Failure> {
    let named = environment.current_dir.join(&diff.before);
    let zip = if named.is_file() { Some(named) } else { of_artifact(&diff.before, environment) };
    let Some(zip) = zip else {
        let message = format!(
            "there is no zip `{0}`, and no function or layer of that name was built",
            diff.before.display()
        );
        return Err(Failure::new(exit::USAGE, message, None));
    };
    let previous = zip.with_file_name(PREVIOUS).join(zip.file_name().unwrap_or_default());
    if previous.is_file() {
        return Ok((previous, zip));
    }
    let message = format!("no other zip was built before `{}`", short_path(&zip, &environment.current_dir));
    let hint = "builds into a folder keep the zip that they replace, if it is another one; or name two zips";
    Err(Failure::new(exit::USAGE, message, Some(hint.to_owned())))
}

/// The zip of a function or layer, in the folder that builds write to without being told.
fn of_artifact(name: &Path, environment: &Environment) -> Option<PathBuf> {
    let project = |folder: &Path| folder.join("lbx.toml").is_file().then(|| folder.to_owned());
    let root = environment.current_dir.ancestors().find_map(project);
    let dist = root.as_ref().unwrap_or(&environment.current_dir).join("dist");
    let zip = dist.join(format!("{}.zip", name.to_str()?));
    zip.is_file().then_some(zip)
}

/// What people read: packages, files, and then what is about the zips as a whole.
fn lines(difference: &Difference, limit: usize) -> Vec<String> {
    let Pair { before, after } = &difference.zips;
    if difference.same {
        return vec![format!("the zips are the same: {}, {}", count(after.files, "file"), bytes(after.size))];
    }
    let mut lines = packages(&difference.packages, limit);
    lines.extend(files("files", &difference.files, limit));
    lines.extend(files("folders", &difference.folders, limit));
    if difference.order_differs {
        lines.push("order: other".to_owned());
    }
    if difference.times_differ > 0 {
        let files = count(difference.times_differ, "file");
        lines.push(format!("times: other in {files}{}", times(before.time.as_ref(), after.time.as_ref())));
    }
    if lines.is_empty() {
        lines.push("the files are the same, and how they are written is not".to_owned());
    }
    let unpacked = Pair { before: before.unpacked_size, after: after.unpacked_size };
    let size = Pair { before: before.size, after: after.size };
    lines.push(format!("size: {}; unpacked: {}", sizes(size), sizes(unpacked)));
    lines.extend(difference.first_byte.map(|byte| format!("the zips differ from byte {byte} on")));
    lines
}

fn times(before: Option<&String>, after: Option<&String>) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!(": {before} → {after}"),
        _ => String::new(),
    }
}

fn packages(packages: &PackageChanges, limit: usize) -> Vec<String> {
    let changed = packages.changed.iter().map(|package| {
        let Pair { before, after } = &package.version;
        format!("  {} {} → {}", one_line(&package.name), one_line(before), one_line(after))
    });
    let one = |sign: char| {
        move |package: &lbx_build::PackageVersion| {
            format!("  {sign} {} {}", one_line(&package.name), one_line(&package.version))
        }
    };
    let added = packages.added.iter().map(one('+'));
    let removed = packages.removed.iter().map(one('-'));
    let rows: Vec<String> = changed.chain(added).chain(removed).collect();
    let counts = [
        (packages.changed.len(), "changed"),
        (packages.added.len(), "added"),
        (packages.removed.len(), "removed"),
    ];
    section("packages", &counts, rows, limit)
}

/// Whether it is only compressed differently, and by how much its size has changed; its path; its text.
type Row<'r> = ((bool, Reverse<u64>), &'r str, String);

/// The biggest change of size first; what is only compressed differently comes last.
fn files(title: &str, files: &FileChanges, limit: usize) -> Vec<String> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for (sign, list) in [('+', &files.added), ('-', &files.removed)] {
        rows.extend(
            list.iter().map(|file| ((false, Reverse(file.size)), &*file.path, row_of_one(sign, file))),
        );
    }
    rows.extend(files.changed.iter().map(|file| {
        let rank = (is_recompressed(file), Reverse(file.size.before.abs_diff(file.size.after)));
        (rank, &*file.path, row_of_both(file))
    }));
    rows.sort();
    let recompressed = files.changed.iter().filter(|file| is_recompressed(file)).count();
    let counts = [
        (files.changed.len() - recompressed, "changed"),
        (files.added.len(), "added"),
        (files.removed.len(), "removed"),
        (recompressed, "compressed differently"),
    ];
    section(title, &counts, rows.into_iter().map(|(_, _, row)| row).collect(), limit)
}

fn is_recompressed(file: &ChangedFile) -> bool {
    file.content == Content::Recompressed && !file.mode.differs()
}

fn row_of_one(sign: char, file: &ZipFile) -> String {
    let mode = file.mode.filter(|mode| mode.0 & 0o111 != 0).map(|mode| format!(", mode {mode}"));
    format!("  {sign} {}: {}{}", one_line(&file.path), bytes(file.size), mode.unwrap_or_default())
}

fn row_of_both(file: &ChangedFile) -> String {
    let mut parts = Vec::new();
    match file.content {
        Content::Same => {}
        Content::Recompressed => {
            parts.push(format!("compressed differently, {}", sizes(file.packed_size)));
        }
        Content::Changed { first_byte } => {
            parts.push(format!("{}, from byte {first_byte} on", sizes(file.size)));
        }
    }
    if file.mode.differs() {
        let shown = |mode: Option<Mode>| mode.map_or_else(|| "none".to_owned(), |mode| mode.to_string());
        parts.push(format!("mode {} → {}", shown(file.mode.before), shown(file.mode.after)));
    }
    format!("  {}: {}", one_line(&file.path), parts.join(", "))
}

/// A title with what there is, and the first rows.
fn section(title: &str, counts: &[(usize, &str)], mut rows: Vec<String>, limit: usize) -> Vec<String> {
    if rows.is_empty() {
        return rows;
    }
    let counts = counts.iter().filter(|(number, _)| *number > 0);
    let counts: Vec<String> = counts.map(|(number, what)| format!("{number} {what}")).collect();
    let more = rows.len().saturating_sub(limit);
    rows.truncate(limit);
    if more > 0 {
        rows.push(format!("  and {more} more (--all lists them)"));
    }
    rows.insert(0, format!("{title}: {}", counts.join(", ")));
    rows
}

/// `1.2 kB`, or `1.2 kB → 1.3 kB (+40 B)`: rounded numbers may look the same when they are not.
fn sizes(size: Pair<u64>) -> String {
    let Pair { before, after } = size;
    if before == after {
        return bytes(after);
    }
    let sign = if after > before { '+' } else { '-' };
    format!("{} → {} ({sign}{})", bytes(before), bytes(after), bytes(before.abs_diff(after)))
}

#[cfg(test)]
mod tests {
    use lbx_build::{ChangedPackage, PackageVersion, ZipFacts};

    use super::*;

    fn facts(size: u64) -> ZipFacts {
        ZipFacts { size, files: 1, unpacked_size: size, time: Some("1980-01-01 00:00:00".to_owned()) }
    }

    fn difference() -> Difference {
        Difference {
            same: false,
            first_byte: Some(14),
            zips: Pair { before: facts(1000), after: facts(1010) },
            packages: PackageChanges::default(),
            files: FileChanges::default(),
            folders: FileChanges::default(),
            order_differs: false,
            times_differ: 0,
        }
    }

    fn added(path: &str, size: u64) -> ZipFile {
        ZipFile { path: path.to_owned(), size, packed_size: size, mode: Some(Mode(0o644)) }
    }

    fn changed(path: &str, before: u64, after: u64, content: Content) -> ChangedFile {
        let mode = Pair { before: Some(Mode(0o644)), after: Some(Mode(0o644)) };
        let size = Pair { before, after };
        ChangedFile { path: path.to_owned(), size, packed_size: size, mode, content }
    }

    #[test]
    fn packages_come_first_and_then_files_by_how_much_their_size_changes() {
        let mut difference = difference();
        let version = Pair { before: "1.0".to_owned(), after: "1.1".to_owned() };
        difference.packages.changed.push(ChangedPackage { name: "six".to_owned(), version });
        difference.packages.added.push(PackageVersion { name: "idna".to_owned(), version: "3".to_owned() });
        difference.files.added = vec![added("small", 7), added("large", 5000)];
        difference.files.changed = vec![
            changed("a", 3000, 3000, Content::Recompressed),
            changed("b", 3000, 4000, Content::Changed { first_byte: 9 }),
            ChangedFile {
                mode: Pair { before: None, after: Some(Mode(0o755)) },
                ..changed("c", 10, 10, Content::Same)
            },
        ];
        difference.order_differs = true;
        difference.times_differ = 1;
        let expected = [
            "packages: 1 changed, 1 added",
            "  six 1.0 → 1.1",
            "  + idna 3",
            "files: 2 changed, 2 added, 1 compressed differently",
            "  + large: 5.0 kB",
            "  b: 3.0 kB → 4.0 kB (+1.0 kB), from byte 9 on",
            "  + small: 7 B",
            "  c: mode none → 0755",
            "  a: compressed differently, 3.0 kB",
            "order: other",
            "times: other in 1 file: 1980-01-01 00:00:00 → 1980-01-01 00:00:00",
            "size: 1.0 kB → 1.0 kB (+10 B); unpacked: 1.0 kB → 1.0 kB (+10 B)",
            "the zips differ from byte 14 on",
        ];
        assert_eq!(lines(&difference, LISTED), expected);
    }

    #[test]
    fn long_lists_end_in_how_much_more_there_is() {
        let mut difference = difference();
        difference.files.added = (0..60).map(|number| added(&format!("{number:02}"), 1)).collect();
        let some = lines(&difference, LISTED);
        assert_eq!(some[0], "files: 60 added");
        assert_eq!((&*some[1], &*some[50]), ("  + 00: 1 B", "  + 49: 1 B"));
        assert_eq!(some[51], "  and 10 more (--all lists them)");
        assert_eq!(lines(&difference, usize::MAX).len(), some.len() - 1 + 10);
    }

    #[test]
    fn a_stranger_writes_no_lines_of_this_output() {
        let mut difference = difference();
        let name = "x\n  + requests\t2\u{1b}[2J".to_owned();
        difference.packages.added.push(PackageVersion { name, version: "1\r0".to_owned() });
        difference.files.added.push(added("a\u{9b}2J", 1));
        let lines = lines(&difference, LISTED);
        assert_eq!(lines[1], "  + x\\n  + requests\\t2\\u{1b}[2J 1\\r0");
        assert_eq!(lines[3], "  + a\\u{9b}2J: 1 B");
    }

    #[test]
    fn what_is_written_differently_is_said_when_nothing_else_is() {
        assert_eq!(
            lines(&difference(), LISTED)[0],
            "the files are the same, and how they are written is not"
        );
        let same = Difference { same: true, first_byte: None, ..difference() };
        assert_eq!(lines(&same, LISTED), ["the zips are the same: 1 file, 1.0 kB"]);
    }
}
