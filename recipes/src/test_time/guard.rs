//! When the adapted answers of a stream can no longer be trusted.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::confidence::greatest;

/// Why an image got its unadapted answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FallBack {
    /// The adapted scores hold NaN or an infinity.
    NotFinite,
    /// One class swallows the stream, and did not before adaptation.
    Collapse,
}

/// Compares the adapted answers of a stream with the unadapted ones, over a window.
///
/// A method has collapsed when its most frequent class has a share of the last `window` answers that is by `margin` greater
/// than the share of the most frequent unadapted class. A stream that truly shows one class has both, and is no collapse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    window: usize,
    margin: f64,
    /// Best classes before and after adaptation.
    recent: VecDeque<(usize, usize)>,
}

impl Guard {
    /// A guard over so many answers; with a window of 0 only scores that are not finite are caught.
    pub fn new(window: usize, margin: f64) -> Self {
        Self { window, margin, recent: VecDeque::new() }
    }

    /// Looks at the scores of one image before and after adaptation.
    pub fn check(&mut self, before: &[f32], after: &[f32]) -> Option<FallBack> {
        if after.iter().any(|score| !score.is_finite()) {
            return Some(FallBack::NotFinite);
        }
        if self.window == 0 {
            return None;
        }
        self.recent.push_back((greatest(before), greatest(after)));
        if self.recent.len() > self.window {
            self.recent.pop_front();
        }
        if self.recent.len() < self.window {
            return None;
        }
        let share = |of: fn(&(usize, usize)) -> usize| {
            let mut classes: Vec<usize> = self.recent.iter().map(of).collect();
            classes.sort_unstable();
            let most = classes.chunk_by(|left, right| left == right).map(<[usize]>::len).max().unwrap_or(0);
            most as f64 / self.window as f64
        };
        (share(|pair| pair.1) > share(|pair| pair.0) + self.margin).then_some(FallBack::Collapse)
    }

    /// Goes on from what another one has seen, as far as it fits into its own window.
    pub fn go_on_from(&mut self, other: &Self) {
        let beyond = other.recent.len().saturating_sub(self.window);
        self.recent = other.recent.iter().skip(beyond).copied().collect();
    }

    /// Begins anew, with the method.
    pub fn reset(&mut self) {
        self.recent.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{FallBack, Guard};

    #[test]
    fn one_class_that_swallows_a_varied_stream_is_a_collapse() {
        let mut guard = Guard::new(8, 0.5);
        let varied = |at: usize| if at.is_multiple_of(2) { [1.0, 0.0] } else { [0.0, 1.0] };
        for at in 0..8 {
            assert_eq!(guard.check(&varied(at), &varied(at)), None);
        }
        // A stream of one class is no collapse, as long as both say so.
        for _ in 0..20 {
            assert_eq!(guard.check(&[1.0, 0.0], &[1.0, 0.0]), None);
        }
        guard.reset();
        let found: Vec<_> = (0..8).map(|at| guard.check(&varied(at), &[3.0, 0.0])).collect();
        assert!(found[..7].iter().all(Option::is_none));
        assert_eq!(found[7], None, "1.0 is not more than 0.5 above 0.5");
        let mut strict = Guard::new(8, 0.4);
        assert_eq!((0..8).find_map(|at| strict.check(&varied(at), &[3.0, 0.0])), Some(FallBack::Collapse));
        assert_eq!(strict.check(&[1.0], &[f32::NAN]), Some(FallBack::NotFinite));
    }

    #[test]
    fn another_stream_goes_on_under_its_own_settings() {
        let varied = |at: usize| if at.is_multiple_of(2) { [1.0, 0.0] } else { [0.0, 1.0] };
        let mut before = Guard::new(8, 1.0);
        for at in 0..8 {
            assert_eq!(before.check(&varied(at), &[3.0, 0.0]), None);
        }
        let mut narrow = Guard::new(4, 0.4);
        narrow.go_on_from(&before);
        assert_eq!(narrow.check(&varied(8), &[3.0, 0.0]), Some(FallBack::Collapse));
        let mut wide = Guard::new(10, 0.4);
        wide.go_on_from(&before);
        assert_eq!(wide.check(&varied(8), &[3.0, 0.0]), None, "nine answers are no window of ten");
        assert_eq!(wide.check(&varied(9), &[3.0, 0.0]), Some(FallBack::Collapse));
        let mut off = Guard::new(0, 0.0);
        off.go_on_from(&before);
        assert_eq!(off.check(&varied(8), &[3.0, 0.0]), None);
    }
}
