//! Bars on a terminal: one for each layer, set and artifact, so that it is seen what runs and what waits.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use lbx_build::Event;
use lbx_image::Event as ImageEvent;

use super::lines::Names;
use super::{Renderer, bytes, count, printable, stderr};

/// How often spinners turn.
const TICK: Duration = Duration::from_millis(100);
/// How many characters of a line of pip's are looked at. What does not fit beside its spinner is cut off.
const PIP_WIDTH: usize = 300;
/// How wide the column of titles is: enough for any layer's, and little enough for a narrow terminal.
const TITLE_WIDTH: std::ops::RangeInclusive<usize> = 15..=32;

/// Shows events as bars on stderr.
pub(super) struct Bars {
    all: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    names: Names,
    title_width: usize,
    layers: BTreeMap<usize, ProgressBar>,
    sets: Vec<ProgressBar>,
    artifacts: Vec<ProgressBar>,
}

impl Bars {
    /// None where nothing can be drawn: without a terminal, or on one that cannot move its cursor.
    pub(super) fn new() -> Option<Self> {
        let all = MultiProgress::new();
        let state = State { title_width: *TITLE_WIDTH.start(), ..State::default() };
        (!all.is_hidden()).then(|| Self { all, state: Mutex::new(state) })
    }

    fn say(&self, line: &str) {
        // The terminal went away: there is nobody to tell.
        let _ = self.all.println(line);
    }

    /// A line for something that waits for its turn.
    fn add_waiting(&self, title: String, width: usize) -> ProgressBar {
        let bar = ProgressBar::new_spinner()
            .with_style(style(&format!("  {{prefix:{width}!}} {{wide_msg}}")))
            .with_prefix(title)
            .with_message("waits");
        let bar = self.all.add(bar);
        bar.tick();
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
        if !state.layers.contains_key(&index) {
            let bar = self.add_layer(state, index, size);
            state.layers.insert(index, bar);
        }
        let Some(bar) = state.layers.get(&index) else { return };
        bar.set_prefix(format!("layer {} {}", index + 1, if unpacking { "unpack" } else { "pull" }));
        bar.set_position(0);
    }

    /// A bar for a layer, in its place: layers by their numbers, before all that waits for them.
    fn add_layer(&self, state: &State, index: usize, size: u64) -> ProgressBar {
        let later = state.layers.range(index..).map(|(_, bar)| bar).next();
        let bar = ProgressBar::new(size).with_style(layer_style(state.title_width));
        match later.or(state.sets.first()).or(state.artifacts.first()) {
            Some(next) => self.all.insert_before(next, bar),
            None => self.all.add(bar),
        }
    }

    fn plan(&self, state: &mut State) {
        let sets: Vec<_> = state.names.sets.iter().map(|set| format!("pip {set}")).collect();
        let artifacts: Vec<_> = state.names.artifacts.iter().map(|name| format!("zip {name}")).collect();
        let longest = sets.iter().chain(&artifacts).map(|title| title.chars().count()).max();
        state.title_width = longest.unwrap_or_default().clamp(*TITLE_WIDTH.start(), *TITLE_WIDTH.end());
        let width = state.title_width;
        state.sets = sets.into_iter().map(|title| self.add_waiting(title, width)).collect();
        state.artifacts = artifacts.into_iter().map(|title| self.add_waiting(title, width)).collect();
    }
}

impl Renderer for Bars {
    fn event(&self, event: &Event) {
        let Ok(mut state) = self.state.lock() else { return };
        let state = &mut *state;
        state.names.note(event);
        let width = state.title_width;
        match event {
            Event::Planned { .. } => self.plan(state),
            Event::Image(event) => self.image(state, event),
            Event::ResolveStarted { set, .. } => start(state, &state.sets, *set),
            Event::ResolveLine { set, line } => {
                let line: String = printable(line).chars().take(PIP_WIDTH).collect();
                with(&state.sets, *set, |bar| bar.set_message(line));
            }
            Event::ResolveFinished { set, wheels, .. } => {
                with(&state.sets, *set, |bar| end(bar, width, &count(*wheels, "wheel")));
            }
            Event::ArtifactStarted { artifact } => start(state, &state.artifacts, *artifact),
            Event::ArtifactFinished { artifact, size, files, .. } => {
                let message = format!("{}, {}", bytes(*size), count(*files, "file"));
                with(&state.artifacts, *artifact, |bar| end(bar, width, &message));
            }
            Event::PackagesLine { .. } => {}
            Event::Isolated { .. }
            | Event::ImageReady { .. }
            | Event::PackagesStarted { .. }
            | Event::PackagesFinished { .. }
            | Event::Unlocked { .. }
            | Event::NotReproducible { .. }
            | Event::LockWritten { .. }
            | Event::Damaged { .. }
            | Event::Found { .. }
            | Event::ResolveRefused { .. } => {
                if let Some(line) = state.names.line(event, false) {
                    self.say(&format!("lbx: {line}"));
                }
            }
        }
    }

    fn finish(&self) {
        let Ok(mut state) = self.state.lock() else { return };
        let state = std::mem::take(&mut *state);
        let stays = state.sets.iter().chain(&state.artifacts).any(ProgressBar::is_finished);
        for bar in state.layers.values().chain(&state.sets).chain(&state.artifacts) {
            if !bar.is_finished() {
                bar.finish_and_clear();
            }
        }
        if stays {
            // The cursor is at the end of the last line.
            stderr("");
        }
    }
}

fn with(bars: &[ProgressBar], index: usize, act: impl FnOnce(&ProgressBar)) {
    if let Some(bar) = bars.get(index) {
        act(bar);
    }
}

fn start(state: &State, bars: &[ProgressBar], index: usize) {
    with(bars, index, |bar| {
        bar.set_style(style(&format!("{{spinner}} {{prefix:{}!}} {{wide_msg}}", state.title_width)));
        bar.set_message("runs");
        bar.enable_steady_tick(TICK);
    });
}

fn end(bar: &ProgressBar, width: usize, message: &str) {
    bar.set_style(style(&format!("✓ {{prefix:{width}!}} {{wide_msg}}")));
    bar.finish_with_message(message.to_owned());
}

fn layer_style(width: usize) -> ProgressStyle {
    let size = |state: &ProgressState, to: &mut dyn std::fmt::Write| {
        // A string takes everything.
        let _ = write!(to, "{} of {}", bytes(state.pos()), bytes(state.len().unwrap_or_default()));
    };
    style(&format!("  {{prefix:{width}!}} {{size:20}} {{wide_bar}}")).with_key("size", size)
}

/// A style from one of the templates in this file, all of which parse.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
