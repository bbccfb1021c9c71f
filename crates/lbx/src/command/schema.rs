//! `lbx schema`: the JSON schema of lbx.toml.

use crate::{exit, render};

/// Prints it.
pub(crate) fn run() -> u8 {
    render::stdout(lbx_plan::json_schema().trim_end());
    exit::SUCCESS
}
