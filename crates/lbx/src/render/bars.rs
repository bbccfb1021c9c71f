//! Bars on a terminal: one for each layer, set and artifact, so that it is seen what runs and what waits.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lbx_build::Event;
use lbx_image::Event as ImageEvent;

use super::lines::{Names, name};
use super::{Renderer, bytes, count, printable};

/// How often spinners turn.
const TICK: Duration = Duration::from_millis(100);
/// How many characters of a line of pip's are shown beside its spinner.
const PIP_WIDTH: usize = 60;

/// Shows events as bars on stderr.
pub(super) struct Bars {
    show_pip: bool,
    all: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    names: Names,
    layers: BTreeMap<usize, ProgressBar>,
    sets: Vec<ProgressBar>,
    artifacts: Vec<ProgressBar>,
}

impl Bars {
    pub(super) fn new(show_pip: bool) -> Self {
        Self { show_pip, all: MultiProgress::new(), state: Mutex::default() }
    }

    fn say(&self, line: &str) {
        // The terminal went away: there is nobody to tell.
        let _ = self.all.println(line);
    }

    /// A line for something that waits for its turn.
    fn waiting(&self, title: String) -> ProgressBar {
        let bar = self.all.add(ProgressBar::new_spinner());
        bar.set_style(style("  {prefix:32!} {msg}"));
        bar.set_prefix(title);
        bar.set_message("waits");
        bar
    }

    fn image(&self, state: &mut State, event: &ImageEvent) {
        match event {
            ImageEvent::LayerStarted { index } | ImageEvent::UnpackStarted { index } => {
                self.layer(state, *index, matches!(event, ImageEvent::UnpackStarted { .. }));
            }
            ImageEvent::LayerProgress { index, bytes } | ImageEvent::UnpackProgress { index, bytes } => {
                if let Some(bar) = state.layers.get(index) {
                    bar.set_position(*bytes);
                }
            }
            ImageEvent::LayerDone { index, .. } => {
                if let Some(bar) = state.layers.remove(index) {
                    bar.finish_and_clear();
                }
            }
            ImageEvent::Retrying { index, reason } => {
                self.say(&format!("layer {}: trying again: {}", index + 1, printable(reason)));
            }
            ImageEvent::Resolving | ImageEvent::Resolved { .. } => {}
        }
    }

    fn layer(&self, state: &mut State, index: usize, unpacking: bool) {
        let size = state.names.layers.get(index).copied().unwrap_or_default();
        let bar = state.layers.entry(index).or_insert_with(|| self.all.insert(0, ProgressBar::new(size)));
        bar.set_style(style("  {prefix:32!} {bar:30} {decimal_bytes:>10} of {decimal_total_bytes}"));
        bar.set_prefix(format!("layer {} {}", index + 1, if unpacking { "unpack" } else { "pull" }));
        bar.set_position(0);
    }

    fn plan(&self, state: &mut State) {
        state.sets = state.names.sets.iter().map(|set| self.waiting(format!("pip {set}"))).collect();
        state.artifacts =
            state.names.artifacts.iter().map(|name| self.waiting(format!("zip {name}"))).collect();
    }
}

impl Renderer for Bars {
    fn event(&self, event: &Event) {
        let Ok(mut state) = self.state.lock() else { return };
        let state = &mut *state;
        state.names.note(event);
        match event {
            Event::Planned { .. } => self.plan(state),
            Event::Image(event) => self.image(state, event),
            Event::ResolveStarted { set } => start(&state.sets, *set),
            Event::ResolveLine { set, line } if self.show_pip => {
                self.say(&format!("pip {}: {}", name(&state.names.sets, *set), printable(line)));
            }
            Event::ResolveLine { set, line } => {
                let line: String = printable(line).chars().take(PIP_WIDTH).collect();
                with(&state.sets, *set, |bar| bar.set_message(line));
            }
            Event::ResolveFinished { set, wheels } => {
                with(&state.sets, *set, |bar| end(bar, &count(*wheels, "wheel")));
            }
            Event::ArtifactStarted { artifact } => start(&state.artifacts, *artifact),
            Event::ArtifactFinished { artifact, size, files, .. } => {
                let message = format!("{}, {}", bytes(*size), count(*files, "file"));
                with(&state.artifacts, *artifact, |bar| end(bar, &message));
            }
            Event::ImageReady { .. } => {
                if let Some(line) = state.names.line(event, false) {
                    self.say(&format!("lbx: {line}"));
                }
            }
        }
    }

    fn finish(&self) {
        if let Ok(state) = self.state.lock() {
            for bar in state.layers.values().chain(&state.sets).chain(&state.artifacts) {
                if !bar.is_finished() {
                    bar.finish_and_clear();
                }
            }
        }
    }
}

fn with(bars: &[ProgressBar], index: usize, act: impl FnOnce(&ProgressBar)) {
    if let Some(bar) = bars.get(index) {
        act(bar);
    }
}

fn start(bars: &[ProgressBar], index: usize) {
    with(bars, index, |bar| {
        bar.set_style(style("{spinner} {prefix:32!} {msg}"));
        bar.set_message("runs");
        bar.enable_steady_tick(TICK);
    });
}

fn end(bar: &ProgressBar, message: &str) {
    bar.set_style(style("✓ {prefix:32!} {msg}"));
    bar.finish_with_message(message.to_owned());
}

/// A style from one of the templates in this file, all of which parse.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
