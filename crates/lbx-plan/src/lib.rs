//! What the user wrote and what it means.
//!
//! The path through this crate is [`Config::parse`] (text to values with positions), then
//! [`Plan::new`] (values to everything that can change a byte of an artifact), and, once wheels are
//! known, [`prune`] (which of their files an artifact leaves out, and by which rule).
//!
//! Everything here is a pure function over values. Reading files, asking the environment and looking
//! at the clock belong to `lbx-build` and `lbx`.
//!
//! ```
//! use lbx_plan::{Config, Overrides, Plan, RequirementFiles, Runtime};
//!
//! let text = "[project]\nruntime = \"python3.11\"\n[functions.hello]\nsource = \"src\"\n";
//! let config = Config::parse("lbx.toml", text).unwrap();
//! let plan = Plan::new(&config, &RequirementFiles::default(), &Overrides::default()).unwrap();
//! assert_eq!(plan.runtime, Runtime::find("python3.11").unwrap());
//! assert_eq!(plan.artifacts[0].name, "hello");
//! ```

mod bytecode;
mod catalog;
mod config;
mod encoding;
mod hidden;
mod imports;
pub mod locks;
mod plan;
mod position;
mod project_name;
pub mod prune;
mod requirements;
mod switch;

pub use bytecode::Bytecode;
pub use catalog::{Architecture, Architectures, Runtime, SymbolVersions};
pub use config::{
    Build, Check, Compression, Config, ConfigError, Defaults, Function, Index, IndexStrategy, Layer, Origin,
    Project, Prune, json_schema, nearest,
};
pub use encoding::{EncodingError, decode};
pub use hidden::Hidden;
pub use imports::Imports;
pub use plan::{Artifact, DependencySet, ImageChoice, Kind, Overrides, Plan, PlanError};
pub use position::{At, Position};
pub use project_name::{project_name, setup_name};
pub use requirements::{Elsewhere, Line, LineKind, PlaceOption, RequirementFiles, RequirementsError, scan};
