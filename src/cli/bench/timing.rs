//! Times of things that are compared: in turn, so that a machine's moods meet both.

use std::time::Instant;

use crate::error::Result;

/// Seconds that each round of something took.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(Vec<f64>);

impl Times {
    /// The time of one call.
    pub(super) fn add(&mut self, call: impl FnOnce() -> Result<()>) -> Result<()> {
        let start = Instant::now();
        call()?;
        self.0.push(start.elapsed().as_secs_f64());
        Ok(())
    }

    /// Adds the rounds of another.
    pub(super) fn extend(&mut self, other: &Times) {
        self.0.extend(&other.0);
    }

    /// The time below which a share `q` of the rounds stayed: the smallest with at least that share at or below it.
    pub(super) fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (q * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }

    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// The times of two calls that take turns.
pub(super) fn in_turn(
    rounds: u32,
    mut first: impl FnMut() -> Result<()>,
    mut second: impl FnMut() -> Result<()>,
) -> Result<[Times; 2]> {
    let mut times: [Times; 2] = Default::default();
    for _ in 0..rounds {
        times[0].add(&mut first)?;
        times[1].add(&mut second)?;
    }
    Ok(times)
}

/// The most memory that this process has held so far, in bytes, where the system says so.
pub(super) fn peak_memory() -> Option<u64> {
    status("VmHWM:")
}

/// The memory that this process holds now, in bytes, where the system says so.
pub(super) fn memory() -> Option<u64> {
    status("VmRSS:")
}

fn status(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib: u64 = text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()?;
    Some(1024 * kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_times_that_occurred() {
        let times = Times(vec![4.0, 1.0, 3.0, 2.0, 100.0]);
        assert_eq!([0.0, 0.2, 0.5, 0.8, 0.99, 1.0].map(|q| times.quantile(q)), [1.0, 1.0, 3.0, 4.0, 100.0, 100.0]);
        assert_eq!(Times(vec![7.0]).median(), 7.0);
    }

    #[test]
    fn a_process_holds_no_more_than_its_peak() {
        if let (Some(now), Some(peak)) = (memory(), peak_memory()) {
            assert!(now > 1 << 20 && now <= peak, "{now} bytes now, {peak} at most");
        }
    }
}
