//! What was built, for machines and for people: `report.json`. Its stable part follows from the inputs alone, as the
//! zips do: no time, no host, no absolute path. What was measured is beside it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lbx_archive::Written;
use lbx_index::Taken;
use lbx_plan::prune::{Decision, Rule};
use lbx_plan::{Artifact, DependencySet, Kind};
use lbx_wheel::Wheel;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::archive;
use crate::builder::{Builder, Built};
use crate::check::Finding;
use crate::engine::Context;
use crate::listing::LeftOut;
use crate::measure::{self, CacheReport, Laps, Measured, SandboxReport};
use crate::resolve::ResolvedSet;

/// The form of `report.json`, counted up when something in it is removed, renamed or means something else.
const VERSION: u32 = 1;

/// What a build made: `report.json`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "report.json")]
pub struct Report {
    /// The form of this file, counted up when something in it is removed, renamed or means something else.
    pub version: u32,
    /// What follows from the inputs alone: the same bytes wherever and whenever they are built.
    pub stable: Stable,
    /// What was measured, or depends on the host.
    pub measured: Measured,
}

/// What follows from the inputs alone.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Stable {
    /// The version of lbx.
    pub lbx: &'static str,
    /// The Lambda runtime.
    pub runtime: String,
    /// The CPU, in Lambda's words.
    pub arch: &'static str,
    /// What it was built in; none when everything was locked and nothing had to be built.
    pub image: Option<ImageReport>,
    /// What compressed the files that did not come from wheels.
    pub compressor: &'static str,
    /// The sets of dependencies, and where they came from.
    pub dependencies: Vec<SetReport>,
    /// The artifacts, by name.
    pub artifacts: Vec<ArtifactReport>,
}

/// The image that was built in.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ImageReport {
    /// As the plan names it.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: String,
    /// The version of its Python.
    pub python: String,
    /// The version of its pip.
    pub pip: String,
}

/// A set of dependencies, resolved once for all artifacts that have it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SetReport {
    /// The requirement files.
    pub requirements: Vec<String>,
    /// The lock that was installed from, without asking pip; none when pip resolved.
    pub lock: Option<String>,
    /// The files that were taken from indexes, by name: wheels of the set, and what others were built from and with.
    pub taken: Vec<TakenReport>,
    /// What was built from source, in the order of its names.
    pub built: Vec<BuiltReport>,
    /// What was asked for and not given, with the name of the host, and of what was being built.
    pub refused: Vec<String>,
}

/// A wheel that was built from source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct BuiltReport {
    /// What it was built from: a file's name, a path, an address.
    pub source: String,
    /// The wheel's file name.
    pub file: String,
    /// SHA-256 of the wheel, in hexadecimal.
    pub sha256: String,
    /// The wheels that it was built with, by file name, with their SHA-256.
    pub requires: BTreeMap<String, String>,
    /// The system packages that were installed for the build, with their versions.
    pub system_packages: BTreeMap<String, String>,
    /// Whether a second build gave the same wheel; none where there was none.
    pub reproducible: Option<bool>,
    /// The first difference.
    pub difference: Option<String>,
}

/// A file that was taken from an index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct TakenReport {
    /// The file's name.
    pub file: String,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its size in bytes; none where a lock does not say it.
    pub size: Option<u64>,
    /// Its address, without user, password and the values of a query; none where a lock does not say it.
    pub url: Option<String>,
    /// The index that lists it; none for a file that a requirement or a lock names by its address.
    pub index: Option<String>,
    /// Whether it is a wheel of the set itself.
    pub installed: bool,
}

/// One artifact.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ArtifactReport {
    /// Its name.
    pub name: String,
    /// Function or layer.
    pub kind: Kind,
    /// The zip's file name.
    pub file: String,
    /// The zip's size in bytes.
    pub size: u64,
    /// SHA-256 of the zip, in hexadecimal.
    pub sha256: String,
    /// The same in base64, as Lambda's `CodeSha256` has it.
    pub code_sha256: String,
    /// How many files it holds.
    pub files: usize,
    /// Their size in bytes once unpacked.
    pub unpacked_size: u64,
    /// What of it is the user's own.
    pub own: Sum,
    /// The same as it is in the zip. Bytes.
    pub own_packed_size: u64,
    /// The handler, if the configuration names one.
    pub handler: Option<String>,
    /// The layers that it runs with.
    pub layers: Vec<String>,
    /// The wheels in it.
    pub wheels: Vec<WheelReport>,
    /// What was left out, and by which rule.
    pub left_out: Vec<LeftOut>,
    /// How much that is, by rule.
    pub left_out_by_rule: BTreeMap<Rule, Sum>,
    /// Whether the AWS SDK was left to the runtime, if that was asked, with both versions.
    pub runtime_provided: Option<Decision>,
    /// What the checks found, the worst first.
    pub findings: Vec<Finding>,
}

/// How many files, and how large they are together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sum {
    /// The number of files; a folder that was not even read is one.
    pub files: usize,
    /// Their size in bytes, once unpacked.
    pub size: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, size: u64) {
        self.files += 1;
        self.size += size;
    }
}

fn by_rule(left_out: &[LeftOut]) -> BTreeMap<Rule, Sum> {
    let mut sums: BTreeMap<Rule, Sum> = BTreeMap::new();
    for left in left_out {
        sums.entry(left.rule).or_default().add(left.size);
    }
    sums
}

/// One wheel of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WheelReport {
    /// The distribution's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The wheel's file name.
    pub file: String,
    /// SHA-256 of the wheel, in hexadecimal.
    pub sha256: String,
    /// What of it is in the artifact.
    pub kept: Sum,
    /// The same as it is in the zip. Bytes.
    pub packed_size: u64,
}

impl Report {
    pub(crate) fn new(
        context: &Context,
        builder: Option<&Builder>,
        sets: &[ResolvedSet],
        artifacts: Vec<ArtifactReport>,
        laps: &Laps,
    ) -> Self {
        let cache = CacheReport {
            wheels: measure::wheels(sets, &context.wheels.taken_in()),
            parts: context.dependencies.count.get(),
            files: context.own_files.get(),
        };
        let sandbox = builder.map(|builder| SandboxReport {
            backend: builder.site().isolation.backend,
            level: builder.site().isolation.claims.level(),
            claims: builder.site().isolation.claims,
        });
        let stable = Stable::new(context, builder, sets, artifacts);
        Self { version: VERSION, stable, measured: Measured { sandbox, seconds: laps.seconds(), cache } }
    }

    /// The text of `report.json`.
    pub fn to_json(&self) -> String {
        // Nothing in these types can fail to serialise: no maps with other keys, no foreign types.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The JSON schema of `report.json`, written from the types above.
    pub fn json_schema() -> String {
        let settings = schemars::generate::SchemaSettings::default().for_serialize();
        let schema = settings.into_generator().into_root_schema_for::<Self>();
        let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
        text.push('\n');
        text
    }
}

impl Stable {
    fn new(
        context: &Context,
        builder: Option<&Builder>,
        sets: &[ResolvedSet],
        artifacts: Vec<ArtifactReport>,
    ) -> Self {
        let sets = context.plan.sets.iter().zip(sets);
        Self {
            lbx: env!("CARGO_PKG_VERSION"),
            runtime: context.plan.runtime.runtime.clone(),
            arch: context.plan.arch.lambda(),
            image: builder.map(|builder| ImageReport {
                reference: context.plan.image.clone(),
                digest: builder.base().image.manifest_digest.to_string(),
                python: builder.base().python.clone(),
                pip: builder.base().pip.clone(),
            }),
            compressor: archive::effort(context).recipe(),
            dependencies: sets.map(|(set, resolved)| SetReport::new(set, resolved)).collect(),
            artifacts,
        }
    }
}

impl SetReport {
    fn new(set: &DependencySet, resolved: &ResolvedSet) -> Self {
        let mut built: Vec<_> = resolved.built.iter().map(built_report).collect();
        built.sort();
        built.dedup();
        let refused = resolved.refused.iter().cloned().collect();
        let (requirements, lock) = (set.requirements.clone(), resolved.lock.clone());
        Self { requirements, lock, taken: resolved.taken.clone(), built, refused }
    }
}

/// What came of an artifact.
pub(crate) struct Made {
    pub(crate) written: Written,
    pub(crate) files: usize,
    pub(crate) unpacked_size: u64,
    pub(crate) own: Sum,
    pub(crate) own_packed_size: u64,
    pub(crate) wheels: Vec<WheelReport>,
    pub(crate) left_out: Vec<LeftOut>,
}

impl ArtifactReport {
    pub(crate) fn new(context: &Context, artifact: &Artifact, made: Made) -> Self {
        let Made { written, files, unpacked_size, own, own_packed_size, wheels, left_out } = made;
        let path = context.options.destination.zip(&artifact.name);
        Self {
            name: artifact.name.clone(),
            kind: artifact.kind,
            file: path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            size: written.size,
            sha256: hex::encode(written.sha256),
            code_sha256: code_sha256(&written.sha256),
            files,
            unpacked_size,
            own,
            own_packed_size,
            handler: artifact.handler.clone(),
            layers: artifact.layers.clone(),
            wheels,
            left_out_by_rule: by_rule(&left_out),
            left_out,
            runtime_provided: None,
            findings: Vec::new(),
        }
    }
}

/// What came from indexes for these wheels.
pub(crate) fn taken(taken: &Taken, wheels: &[Arc<Wheel>]) -> Vec<TakenReport> {
    let is_installed = |sha256: &str| wheels.iter().any(|wheel| wheel.digest.to_string() == sha256);
    // Parts alone were looked at, and what was looked at is not what was taken.
    let whole = taken.files.iter().filter(|file| file.whole);
    let mut all: Vec<_> = whole
        .map(|file| TakenReport {
            file: file.name.clone(),
            sha256: file.sha256.to_string(),
            size: Some(file.size),
            url: Some(file.url.to_string()),
            index: file.index.as_ref().map(ToString::to_string),
            installed: is_installed(&file.sha256.to_string()),
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

fn built_report(built: &Built) -> BuiltReport {
    BuiltReport {
        source: built.source.clone(),
        file: built.wheel.filename.to_string(),
        sha256: built.wheel.digest.to_string(),
        requires: built.requires.clone(),
        system_packages: built.system_packages.clone(),
        reproducible: built.again.reproducible(),
        difference: built.again.difference(),
    }
}

/// What a wheel is. What of it is kept is counted by whoever packs it.
pub(crate) fn wheel_report(wheel: &Wheel) -> WheelReport {
    WheelReport {
        name: wheel.metadata.name.clone(),
        version: wheel.metadata.version.clone(),
        file: wheel.filename.to_string(),
        sha256: wheel.digest.to_string(),
        kept: Sum::default(),
        packed_size: 0,
    }
}

/// Lambda's `CodeSha256`, which Terraform calls `source_code_hash`.
pub(crate) fn code_sha256(sha256: &[u8; 32]) -> String {
    STANDARD.encode(sha256)
}
