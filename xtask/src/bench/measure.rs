//! Timing: contestants in turns, and the median of each.

use std::time::{Duration, Instant};

use crate::Result;

/// Something that is measured: what is done before each time, and what is timed.
pub(super) struct Contestant<'a> {
    pub(super) prepare: Box<dyn FnMut() -> Result<()> + 'a>,
    pub(super) run: Box<dyn FnMut() -> Result<()> + 'a>,
}

impl<'a> Contestant<'a> {
    pub(super) fn new(
        prepare: impl FnMut() -> Result<()> + 'a,
        run: impl FnMut() -> Result<()> + 'a,
    ) -> Self {
        Self { prepare: Box::new(prepare), run: Box::new(run) }
    }
}

/// Times the contestants in turns, after one turn that warms caches, and returns each one's median in
/// seconds.
pub(super) fn medians(rounds: usize, contestants: &mut [Contestant<'_>]) -> Result<Vec<f64>> {
    let mut times: Vec<Vec<Duration>> = contestants.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for (contestant, times) in contestants.iter_mut().zip(&mut times) {
            (contestant.prepare)()?;
            let start = Instant::now();
            (contestant.run)()?;
            if round > 0 {
                times.push(start.elapsed());
            }
        }
    }
    Ok(times.into_iter().map(median).collect())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_not_moved_by_one_slow_time() {
        let times = [1, 2, 900].map(Duration::from_secs).to_vec();
        assert!((median(times) - 2.0).abs() < f64::EPSILON);
    }
}
