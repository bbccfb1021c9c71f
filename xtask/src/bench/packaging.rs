//! Whole builds from the store to zips: what lbx takes to see that there is nothing to do, to put one changed file into a
//! large zip, to write many zips, and to compress; against `cp` of the same zips, `zip` and `7z`.
//!
//! Each is a process, in a project whose requirements are locked. With one core, contestants have no more than that one,
//! both of them.

mod material;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use lbx_testkit::index;
use nix::sched::{CpuSet, sched_getaffinity};

use self::material::{Numbers, Project};
use super::measure::{Contestant, medians};
use super::{Bound, Results, has, peak, remove};
use crate::{Result, process, wheels};

/// How often the fast ones have a turn.
const ROUNDS: usize = 7;
/// How often the slow ones have one.
const SLOW_ROUNDS: usize = 3;

/// Measures all rows of this file.
pub(super) fn measure(scratch: &Path, image: &str, results: &mut Results) -> Result<()> {
    let (set, pure) = (index::serve(&wheels::fetch()?), index::serve(&material::fetch_pure()?));
    let six = |name: &str| Project::new(scratch, name, image, &set, &wheels::requirements());
    let pure = |name: &str| Project::new(scratch, name, image, &pure, &material::pure_requirements());
    nothing_changed(pure("noop")?, results)?;
    one_file(scratch, six("onefile")?, results)?;
    many_functions(scratch, pure("functions")?, results)?;
    max_compression(scratch, six("max")?, results)?;
    many_sources(scratch, Project::new(scratch, "sources", image, &set, "")?, results)?;
    memory(scratch, six("large")?, results)
}

/// How many cores contestants have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cores {
    All,
    One,
}

impl Cores {
    const BOTH: [Self; 2] = [Self::All, Self::One];

    fn command(self, program: impl AsRef<OsStr>) -> Result<Command> {
        if self == Self::All {
            return Ok(Command::new(program));
        }
        let allowed = sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
        let core = (0..CpuSet::count()).find(|core| allowed.is_set(*core) == Ok(true)).unwrap_or_default();
        let mut command = Command::new("taskset");
        command.arg("-c").arg(core.to_string()).arg(program);
        Ok(command)
    }

    /// Adds a number. With one core, it is there to show how the other one scales.
    fn add(self, results: &mut Results, key: &str, value: f64, bound: Bound) {
        match self {
            Self::All => results.add(key, value, bound),
            Self::One => results.add(format!("{key}_1core"), value, Bound::Reported),
        }
    }
}

/// A contestant that can be told how many cores it has.
struct Side<'s> {
    prepare: &'s dyn Fn() -> Result<()>,
    run: &'s dyn Fn(Cores) -> Result<()>,
}

impl<'s> Side<'s> {
    fn contestant(&'s self, cores: Cores) -> Contestant<'s> {
        Contestant::new(self.prepare, move || (self.run)(cores))
    }
}

/// Times all sides with all cores and with one, in turns, and returns each one's median in seconds, in their order.
fn race(rounds: usize, sides: &[Side<'_>]) -> Result<Vec<(Cores, Vec<f64>)>> {
    let of = |cores: Cores| sides.iter().map(move |side| side.contestant(cores));
    let mut contestants: Vec<_> = Cores::BOTH.into_iter().flat_map(of).collect();
    let times = medians(rounds, &mut contestants)?;
    Ok(Cores::BOTH.into_iter().zip(times.chunks(sides.len()).map(<[f64]>::to_vec)).collect())
}

/// `noop_ms`: twenty functions, and nothing to do.
fn nothing_changed(mut project: Project, results: &mut Results) -> Result<()> {
    let mut numbers = Numbers::new(20);
    for at in 0..20 {
        let folder = project.add_function(&format!("function_{at:02}"), &mut numbers)?;
        material::write_modules(&folder, 10)?;
    }
    project.settle()?;
    project.check_unchanged()?;
    let ours = Side { prepare: &|| Ok(()), run: &|cores| project.build(cores) };
    for (cores, times) in race(3 * ROUNDS, &[ours])? {
        cores.add(results, "noop_ms", times[0] * 1e3, Bound::AtMost(15.0));
    }
    project.check_unchanged()
}

/// `onefile_vs_cp`: the handler of one large function changes.
fn one_file(scratch: &Path, mut project: Project, results: &mut Results) -> Result<()> {
    let folder = project.add_function("large", &mut Numbers::new(150))?;
    material::write_modules(&folder, 10)?;
    project.settle()?;
    let (zip, copy) = (project.zip("large"), scratch.join("copy.zip"));
    let changes = std::cell::Cell::new(0);
    let change =
        || append(&folder.join("handler.py"), &format!("CHANGES = {}\n", changes.replace(changes.get() + 1)));
    let sides = [
        Side { prepare: &change, run: &|cores| project.build(cores) },
        Side { prepare: &|| remove(&copy), run: &|cores| copy_to(cores, &zip, &copy) },
    ];
    for (cores, times) in race(ROUNDS, &sides)? {
        cores.add(results, "onefile_vs_cp", times[0] / times[1], Bound::AtMost(1.5));
        cores.add(results, "onefile_ms", times[0] * 1e3, Bound::Reported);
    }
    remove(&copy)
}

fn append(path: &Path, text: &str) -> Result<()> {
    let mut file = fs_err::OpenOptions::new().append(true).open(path)?;
    Ok(std::io::Write::write_all(&mut file, text.as_bytes())?)
}

fn copy_to(cores: Cores, from: &Path, to: &Path) -> Result<()> {
    process::output(cores.command("cp")?.arg("-r").arg(from).arg(to)).map(drop)
}

/// `functions_300_vs_cp`: many zips that begin alike, all to be written again.
fn many_functions(scratch: &Path, mut project: Project, results: &mut Results) -> Result<()> {
    let mut numbers = Numbers::new(300);
    let names: Vec<String> = (0..300).map(|at| format!("function_{at:03}")).collect();
    for name in &names {
        project.add_function(name, &mut numbers)?;
    }
    project.settle()?;
    let (zips, copy) = (scratch.join("zips"), scratch.join("zips-copied"));
    fs_err::create_dir(&zips)?;
    for name in &names {
        fs_err::hard_link(project.zip(name), zips.join(name))?;
    }
    // Nobody is to wait for the disk to take what was written before.
    process::output(&mut Command::new("sync"))?;
    let dist = project.dist();
    let sides = [
        Side { prepare: &|| remove(&dist), run: &|cores| project.build(cores) },
        Side { prepare: &|| remove(&copy), run: &|cores| copy_to(cores, &zips, &copy) },
    ];
    for (cores, times) in race(ROUNDS, &sides)? {
        cores.add(results, "functions_300_vs_cp", times[0] / times[1], Bound::AtMost(1.5));
        cores.add(results, "functions_300_ms", times[0] * 1e3, Bound::Reported);
    }
    [&dist, &zips, &copy].into_iter().try_for_each(|path| remove(path))
}

/// `max_size_vs_7z`, `max_cold_vs_7z` and `max_warm_vs_7z`: as small as it can be.
fn max_compression(scratch: &Path, mut project: Project, results: &mut Results) -> Result<()> {
    if !has("7z") || !has("unzip") {
        results.skip("max_size_vs_7z", "7z");
        return Ok(());
    }
    project.config = project.config.replacen("[project]\n", "[project]\ncompression = \"max\"\n", 1);
    project.add_function("max", &mut Numbers::new(12))?;
    project.settle()?;
    let (tree, zip) = (scratch.join("max-tree"), scratch.join("7z.zip"));
    process::output(Command::new("unzip").arg("-q").arg(project.zip("max")).arg("-d").arg(&tree))?;
    let peer = |cores: Cores| -> Result<()> {
        let mut command = cores.command("7z")?;
        command.args(["a", "-tzip", "-mx=9", "-mmt"]).arg(&zip).arg(".").current_dir(&tree);
        process::output(&mut command).map(drop)
    };
    let dist = project.dist();
    let forget = || remove(&dist).and_then(|()| forget_compressed(&project.cache));
    let cold = Side { prepare: &forget, run: &|cores| project.build(cores) };
    let theirs = Side { prepare: &|| remove(&zip), run: &peer };
    let all = medians(SLOW_ROUNDS, &mut [cold.contestant(Cores::All), theirs.contestant(Cores::All)])?;
    // Once is enough of what takes minutes and is held against nothing.
    let one = [once(&cold, Cores::One)?, once(&theirs, Cores::One)?];
    let warm = Side { prepare: &|| remove(&dist), run: &|cores| project.build(cores) };
    let warm = medians(ROUNDS, &mut [warm.contestant(Cores::All)])?[0];
    results.add("max_size_vs_7z", size(&project.zip("max"))? / size(&zip)?, Bound::AtMost(1.0));
    for (cores, times) in [(Cores::All, &all[..]), (Cores::One, &one)] {
        cores.add(results, "max_cold_vs_7z", times[1] / times[0], Bound::AtLeast(2.0));
        cores.add(results, "max_cold_ms", times[0] * 1e3, Bound::Reported);
    }
    results.add("max_warm_vs_7z", all[1] / warm, Bound::AtLeast(50.0));
    results.add("max_warm_ms", warm * 1e3, Bound::Reported);
    Ok(())
}

/// One turn, in seconds.
fn once(side: &Side<'_>, cores: Cores) -> Result<f64> {
    (side.prepare)()?;
    let start = Instant::now();
    (side.run)(cores)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Removes from the store what was compressed of wheels, and what was written of it. The wheels stay.
fn forget_compressed(cache: &Path) -> Result<()> {
    let mut found = 0;
    for wheel in fs_err::read_dir(cache.join("wheels"))? {
        let wheel = wheel?;
        if !wheel.file_type()?.is_dir() {
            continue;
        }
        for file in fs_err::read_dir(wheel.path())? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with("derived-") {
                fs_err::remove_file(file.path())?;
                found += 1;
            }
        }
    }
    if found == 0 {
        return Err(format!("{}: nothing that was compressed is kept here", cache.display()).into());
    }
    remove(&cache.join("parts"))
}

/// `zip_sources_vs_zip6`: nothing but own code, much of it, all to be compressed.
fn many_sources(scratch: &Path, mut project: Project, results: &mut Results) -> Result<()> {
    if !has("zip") {
        results.skip("zip_sources_vs_zip6", "zip");
        return Ok(());
    }
    let folder = project.add_function("sources", &mut Numbers::new(20_000))?;
    // With the handler.
    material::write_modules(&folder, 19_999)?;
    project.settle()?;
    let zip = scratch.join("sources.zip");
    let peer = |cores: Cores| -> Result<()> {
        let mut command = cores.command("zip")?;
        command.args(["-r", "-6", "-X", "-q"]).arg(&zip).arg(".").current_dir(&folder);
        process::output(&mut command).map(drop)
    };
    let dist = project.dist();
    let sides = [
        Side { prepare: &|| remove(&dist), run: &|cores| project.build(cores) },
        Side { prepare: &|| remove(&zip), run: &peer },
    ];
    for (cores, times) in race(SLOW_ROUNDS, &sides)? {
        cores.add(results, "zip_sources_vs_zip6", times[1] / times[0], Bound::AtLeast(4.0));
        cores.add(results, "zip_sources_ms", times[0] * 1e3, Bound::Reported);
    }
    results.add("zip_sources_size_vs_zip6", size(&project.zip("sources"))? / size(&zip)?, Bound::AtMost(1.0));
    Ok(())
}

fn size(path: &Path) -> Result<f64> {
    #[expect(clippy::cast_precision_loss, reason = "sizes of zips are far below 2^53")]
    Ok(fs_err::metadata(path)?.len() as f64)
}

/// `peak_rss_mb_large`: a function of 250 MB, with nothing in the store.
fn memory(scratch: &Path, mut project: Project, results: &mut Results) -> Result<()> {
    let folder = project.add_function("large", &mut Numbers::new(250))?.join("data");
    fs_err::create_dir(&folder)?;
    let mut numbers = Numbers::new(100);
    material::write_table(&folder.join("history.csv"), 60_000_000, &mut numbers)?;
    // As large as a file can be that is compressed in one piece, nearly.
    material::write_noise(&folder.join("weights.bin"), 16_000_000, &mut numbers)?;
    material::write_table(&folder.join("prices.csv"), 14_000_000, &mut numbers)?;
    for at in 0..10 {
        material::write_table(&folder.join(format!("region_{at}.csv")), 1_000_000, &mut numbers)?;
    }
    project.settle()?;
    remove(&project.dist())?;
    project.cache = scratch.join("cache-of-large");
    let mut build = project.lbx(Cores::All, "build")?;
    build.args(["--quiet", "--locked"]);
    results.add("peak_rss_mb_large", peak::of(&mut build)?, Bound::AtMost(120.0));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_one_core_a_program_has_one() {
        let count = |cores: Cores| process::text(&mut cores.command("nproc").unwrap()).unwrap();
        assert_eq!(count(Cores::One), "1\n");
        let all = std::thread::available_parallelism().unwrap();
        assert_eq!(count(Cores::All), format!("{all}\n"));
    }

    #[test]
    fn with_one_core_a_number_is_held_against_nothing() {
        let mut results = Results::default();
        for cores in Cores::BOTH {
            cores.add(&mut results, "slow", 9.0, Bound::AtMost(1.0));
        }
        let found: Vec<_> =
            results.numbers.iter().map(|number| (number.key.as_str(), number.reached())).collect();
        assert_eq!(found, [("slow", false), ("slow_1core", true)]);
    }

    #[test]
    fn all_sides_have_as_many_turns_with_one_core_as_with_all() {
        let turns = std::cell::RefCell::new(Vec::new());
        let run = |cores| {
            turns.borrow_mut().push(cores);
            Ok(())
        };
        let times = race(2, &[Side { prepare: &|| Ok(()), run: &run }]).unwrap();
        assert!(*turns.borrow() == [Cores::BOTH; 3].concat());
        assert!(times.iter().all(|(_, medians)| medians.len() == 1) && times.len() == 2);
    }

    #[test]
    fn what_was_compressed_is_forgotten_and_wheels_are_not() {
        let cache = tempfile::tempdir().unwrap();
        let wheel = cache.path().join("wheels/00");
        let part = cache.path().join("parts/v1/00");
        fs_err::create_dir_all(&wheel).unwrap();
        fs_err::create_dir_all(&part).unwrap();
        for name in ["a.whl", "derived-smaller", "derived-smaller.index"] {
            fs_err::write(wheel.join(name), "").unwrap();
        }
        fs_err::write(part.join("bytes"), "").unwrap();
        forget_compressed(cache.path()).unwrap();
        assert!(!part.exists());
        assert_eq!(fs_err::read_dir(&wheel).unwrap().count(), 1);
        let error = forget_compressed(cache.path()).unwrap_err().to_string();
        assert!(error.ends_with("nothing that was compressed is kept here"), "{error}");
    }
}
