//! `lbx schema`: the JSON schemas of lbx.toml and of report.json.

use lbx_build::Report;

use crate::arguments::Schema;
use crate::{exit, render};

/// Prints one of them.
pub(crate) fn run(schema: &Schema) -> u8 {
    let text = if schema.report { Report::json_schema() } else { lbx_plan::json_schema() };
    render::stdout(text.trim_end());
    exit::SUCCESS
}
