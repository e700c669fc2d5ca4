//! ADWIN: a window over a stream of numbers that shrinks when its mean has changed (Bifet and Gavalda, 2007).

use serde::{Deserialize, Serialize};

/// Buckets of one size before two of them become one of twice the size.
const MOST_BUCKETS: usize = 5;

/// The window, as an exponential histogram: memory grows with the logarithm of its length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adwin {
    /// Chance of a false alarm at a cut.
    delta: f64,
    /// Buckets, newest first: number of values, their sum, and the sum of squared deviations from their mean.
    #[serde(with = "exact")]
    buckets: Vec<(u64, f64, f64)>,
}

/// Numbers by their bits: as decimals they would come back changed in the last digit, and a window would go on otherwise.
mod exact {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(super) fn serialize<S: Serializer>(buckets: &[(u64, f64, f64)], serializer: S) -> Result<S::Ok, S::Error> {
        let bits: Vec<(u64, u64, u64)> =
            buckets.iter().map(|(count, sum, square)| (*count, sum.to_bits(), square.to_bits())).collect();
        bits.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(u64, f64, f64)>, D::Error> {
        let bits = Vec::<(u64, u64, u64)>::deserialize(deserializer)?;
        Ok(bits.into_iter().map(|(count, sum, square)| (count, f64::from_bits(sum), f64::from_bits(square))).collect())
    }
}

impl Adwin {
    /// An empty window.
    pub fn new(delta: f64) -> Self {
        Self { delta: delta.clamp(1e-9, 0.5), buckets: Vec::new() }
    }

    /// Number of values in the window.
    pub fn len(&self) -> u64 {
        self.buckets.iter().map(|(count, ..)| count).sum()
    }

    /// Whether the window is empty.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Mean of the window.
    pub fn mean(&self) -> f64 {
        self.buckets.iter().map(|(_, sum, _)| sum).sum::<f64>() / self.len().max(1) as f64
    }

    /// Whether it can have come from values of 0 to 1; what was read from a file need not.
    pub(super) fn is_sound(&self) -> bool {
        let numbers = |(count, sum, square): &(u64, f64, f64)| *count > 0 && sum.is_finite() && square.is_finite();
        let length = self.buckets.iter().try_fold(0u64, |length, (count, ..)| length.checked_add(*count));
        self.delta > 0.0
            && self.delta <= 0.5
            && self.buckets.len() <= MOST_BUCKETS * 64
            && self.buckets.iter().all(numbers)
            && length.is_some_and(|length| length < 1 << 53)
    }

    /// Takes a value in; whether the window shrank, because what is old differs from what is new.
    pub fn push(&mut self, value: f64) -> bool {
        self.buckets.insert(0, (1, value, 0.0));
        self.compress();
        let mut shrank = false;
        while self.cut() {
            self.buckets.pop();
            shrank = true;
        }
        shrank
    }

    /// Joins the two oldest buckets of a size that has too many.
    fn compress(&mut self) {
        let mut size = 1;
        loop {
            let same: Vec<usize> = (0..self.buckets.len()).filter(|at| self.buckets[*at].0 == size).collect();
            if same.len() <= MOST_BUCKETS {
                return;
            }
            let (newer, older) = (same[same.len() - 2], same[same.len() - 1]);
            let (a, b) = (self.buckets[newer], self.buckets[older]);
            let (n, m) = (a.0 as f64, b.0 as f64);
            let apart = a.1 / n - b.1 / m;
            self.buckets[newer] = (a.0 + b.0, a.1 + b.1, a.2 + b.2 + apart * apart * n * m / (n + m));
            self.buckets.remove(older);
            size *= 2;
        }
    }

    /// Whether some cut of the window leaves two parts of different means.
    fn cut(&self) -> bool {
        let total = self.len();
        if total < 10 {
            return false;
        }
        let (mean, all) = (self.mean(), total as f64);
        let within = |(count, sum, square): &(u64, f64, f64)| {
            let n = *count as f64;
            square + n * (sum / n - mean).powi(2)
        };
        let variance = self.buckets.iter().map(within).sum::<f64>() / all;
        let confidence = (2.0 * all.ln().max(1.0) / self.delta).ln();
        let (mut count, mut sum) = (0u64, 0.0);
        let whole: f64 = self.buckets.iter().map(|(_, sum, _)| sum).sum();
        for (own, own_sum, _) in &self.buckets[..self.buckets.len() - 1] {
            count += own;
            sum += own_sum;
            let (new, old) = (count as f64, (total - count) as f64);
            if new < 5.0 || old < 5.0 {
                continue;
            }
            let harmonic = 1.0 / (1.0 / new + 1.0 / old);
            let bound = (2.0 / harmonic * variance * confidence).sqrt() + 2.0 / (3.0 * harmonic) * confidence;
            if (sum / new - (whole - sum) / old).abs() > bound {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::Adwin;

    #[test]
    fn a_change_of_the_mean_is_found_and_a_saved_window_goes_on_alike() {
        let noise = Seed::new(1).uniforms(2000, 0.2);
        let value = |at: usize| f64::from(noise[at]) + if at < 1000 { 0.3 } else { 0.7 };
        let mut window = Adwin::new(0.002);
        assert!((0..1000).all(|at| !window.push(value(at))), "a false alarm");
        assert_eq!(window.len(), 1000);
        let mut again: Adwin = serde_json::from_str(&serde_json::to_string(&window).unwrap()).unwrap();
        let found = (1000..2000).position(|at| window.push(value(at))).expect("a change");
        let also = (1000..2000).position(|at| again.push(value(at))).expect("a change");
        assert!(found == also && found < 100, "{found} {also}");
        for at in 1001 + found..2000 {
            window.push(value(at));
        }
        assert!((window.mean() - 0.7).abs() < 0.05, "{}", window.mean());
    }
    #[test]
    fn a_window_that_no_values_leave_is_not_sound() {
        let sound = |buckets: Vec<(u64, f64, f64)>| Adwin { delta: 0.01, buckets }.is_sound();
        assert!(sound(Vec::new()) && sound(vec![(1, 0.5, 0.0), (2, 1.0, 0.1)]));
        assert!(!sound(vec![(u64::MAX, 0.5, 0.0), (1, 0.5, 0.0)]));
        assert!(!sound(vec![(1, f64::NAN, 0.0)]) && !sound(vec![(0, 0.0, 0.0)]) && !sound(vec![(1, 0.5, 0.0); 400]));
        assert!(!Adwin { delta: 0.0, buckets: Vec::new() }.is_sound());
    }
}
