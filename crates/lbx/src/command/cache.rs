//! `lbx cache`: how much the store has, what may go, and whether it is what it was.

use std::collections::BTreeMap;
use std::time::Duration;

use lbx_build::cache::{Amount, Collected, Kind, Verified, Wanted, collect, usage, verify};
use lbx_build::{Cancel, bytes};
use serde_json::json;

use super::cache_dir;
use crate::arguments::{Arguments, Cache, CacheCommand, Collect, Verify};
use crate::environment::Environment;
use crate::exit;
use crate::failure::Failure;
use crate::render::{Output, count, short_path};

/// What goes when nothing else is said. Days.
const OLD: u32 = 30;

/// Does it, and says what came of it.
pub(crate) fn run(arguments: &Arguments, cache: &Cache, environment: &Environment) -> u8 {
    let output = Output::new(arguments);
    let done = match &cache.command {
        CacheCommand::Du => du(&output, environment),
        CacheCommand::Gc(wanted) => gc(&output, wanted, environment),
        CacheCommand::Verify(wanted) => check(&output, wanted, environment),
    };
    done.unwrap_or_else(|failure| output.failure(&failure))
}

fn du(output: &Output, environment: &Environment) -> Result<u8, Failure> {
    let folder = cache_dir(environment)?;
    let all = usage(&folder);
    let total: u64 = all.values().map(|amount| amount.bytes).sum();
    output.json(&json!({"reason": "usage", "store": folder, "kinds": all, "bytes": total}));
    for line in table(&all) {
        output.result(&line);
    }
    output.result(&format!("{:>10}  in {}", bytes(total), folder.display()));
    Ok(exit::SUCCESS)
}

fn gc(output: &Output, wanted: &Collect, environment: &Environment) -> Result<u8, Failure> {
    // A size says what is to stay, so that nothing else has to go.
    let days = wanted.older_than.or_else(|| wanted.max_size.is_none().then_some(OLD));
    let age = days.map(|days| Duration::from_secs(u64::from(days) * 24 * 60 * 60));
    let options = Wanted { size: wanted.max_size, age, dry_run: wanted.dry_run };
    let Collected { gone, left } = collect(&cache_dir(environment)?, options)?;
    let freed: u64 = gone.values().map(|amount| amount.bytes).sum();
    let dry_run = wanted.dry_run;
    output.json(
        &json!({"reason": "collected", "dry_run": dry_run, "gone": gone, "bytes": freed, "left": left}),
    );
    for line in table(&gone) {
        output.result(&line);
    }
    let word = if dry_run { "would be freed" } else { "freed" };
    output.result(&format!("{:>10}  {word}, {} left", bytes(freed), bytes(left)));
    Ok(exit::SUCCESS)
}

fn check(output: &Output, wanted: &Verify, environment: &Environment) -> Result<u8, Failure> {
    let folder = cache_dir(environment)?;
    let Verified { read, damaged, removed } = verify(&folder, wanted.dry_run, &Cancel::new())?;
    output.json(&json!({"reason": "verified", "read": read, "damaged": damaged, "removed": removed}));
    let word = if removed { "damaged, and removed" } else { "damaged" };
    for one in &damaged {
        output.result(&format!("{word}: {}", short_path(&one.path, &folder)));
    }
    if !removed && !wanted.dry_run && !damaged.is_empty() {
        output.note("nothing is removed while the store is in use: try again when builds have ended");
    }
    output.result(&format!(
        "{} read, {} damaged",
        count(read, "entry").replace("entrys", "entries"),
        damaged.len()
    ));
    Ok(if damaged.is_empty() { exit::SUCCESS } else { exit::SYSTEM })
}

fn table(all: &BTreeMap<Kind, Amount>) -> Vec<String> {
    let line = |(kind, amount): (&Kind, &Amount)| {
        format!("{:>10}  {:>6}  {}", bytes(amount.bytes), amount.entries, kind.word())
    };
    all.iter().map(line).collect()
}
