//! From stored intensities to grey levels: which part of their range is shown.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The part of a range of intensities that is spread over the grey levels 0 to 255; what lies outside is clipped.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Window {
    /// From `centre - width / 2` to `centre + width / 2`, in the units of the file (Hounsfield for CT).
    Level {
        /// The middle.
        centre: f64,
        /// The length, above 0.
        width: f64,
    },
    /// Between two percentiles of the frame, 0 to 100.
    Percentile {
        /// The percentile that becomes black.
        low: f64,
        /// The percentile that becomes white.
        high: f64,
    },
    /// From the least to the greatest value of the frame.
    Full,
}

/// How grey levels rise within a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    /// `LINEAR` of DICOM PS3.3 C.11.2.1.2.1, which counts in whole units.
    Linear,
    /// `LINEAR_EXACT`, C.11.2.1.3.2.
    LinearExact,
    /// `SIGMOID`, C.11.2.1.3.1.
    Sigmoid,
}

impl FromStr for Window {
    type Err = Error;

    /// Reads `CENTRE:WIDTH`, `pLOW:HIGH` (percentiles) or `full`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let reason = format!("`{text}` is none; expected `CENTRE:WIDTH`, `pLOW:HIGH` (percentiles) or `full`");
            Error::invalid("window", reason)
        };
        if text == "full" {
            return Ok(Self::Full);
        }
        let (percentiles, pair) = text.strip_prefix('p').map_or((false, text), |rest| (true, rest));
        let (first, second) = pair.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(wrong);
        let (first, second) = (number(first)?, number(second)?);
        match percentiles {
            true if 0.0 <= first && first < second && second <= 100.0 => {
                Ok(Self::Percentile { low: first, high: second })
            }
            false if second > 0.0 => Ok(Self::Level { centre: first, width: second }),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Window {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level { centre, width } => write!(f, "{centre}:{width}"),
            Self::Percentile { low, high } => write!(f, "p{low}:{high}"),
            Self::Full => f.write_str("full"),
        }
    }
}

impl Window {
    /// The grey level of each value; those of `padding` do not count for percentiles and extremes, and what is no number
    /// becomes black.
    pub(super) fn greys(self, values: &[f32], padding: impl Fn(usize) -> bool) -> Vec<u8> {
        let counted = || {
            let values = values.iter().enumerate();
            values.filter(|(at, value)| value.is_finite() && !padding(*at)).map(|(_, value)| *value)
        };
        let (low, high) = match self {
            Self::Level { centre, width } => return greys(values, centre, width, Curve::LinearExact),
            Self::Percentile { low, high } => {
                let mut sample: Vec<f32> = counted().collect();
                if sample.is_empty() {
                    return vec![0; values.len()];
                }
                (percentile(&mut sample, low), percentile(&mut sample, high))
            }
            Self::Full => counted().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(f64::from(value)), high.max(f64::from(value)))
            }),
        };
        if !(low.is_finite() && high > low) {
            // One value everywhere: there is nothing to spread.
            return vec![0; values.len()];
        }
        greys(values, (low + high) / 2.0, high - low, Curve::LinearExact)
    }
}

/// Grey levels of values in a window.
pub(super) fn greys(values: &[f32], centre: f64, width: f64, curve: Curve) -> Vec<u8> {
    let level = |value: f32| -> u8 {
        let value = f64::from(value);
        let share = match curve {
            // With a width of 1 it is a threshold, as the standard has it.
            Curve::Linear if width <= 1.0 => f64::from(u8::from(value > centre - 0.5)),
            Curve::Linear => (value - (centre - 0.5)) / (width - 1.0) + 0.5,
            Curve::LinearExact => (value - centre) / width + 0.5,
            Curve::Sigmoid => 1.0 / (1.0 + (-4.0 * (value - centre) / width).exp()),
        };
        // What is no number becomes 0.
        (share * 255.0).round().clamp(0.0, 255.0) as u8
    };
    values.iter().map(|value| level(*value)).collect()
}

/// A percentile by linear interpolation between the nearest ranks, as `numpy.percentile`; reorders the sample.
fn percentile(sample: &mut [f32], percent: f64) -> f64 {
    let place = percent / 100.0 * (sample.len() - 1) as f64;
    let (_, lower, rest) = sample.select_nth_unstable_by(place.floor() as usize, f32::total_cmp);
    let lower = f64::from(*lower);
    let upper = rest.iter().copied().min_by(f32::total_cmp).map_or(lower, f64::from);
    lower + (upper - lower) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::{Curve, Window, greys};

    #[test]
    fn windows_are_read_and_written() {
        for text in ["40:400", "-600.5:1500", "p0.5:99.5", "full"] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
        for text in ["", "40", "40:0", "40:-3", "p3", "p60:40", "p0:101", "nan:4", "wide"] {
            let message = text.parse::<Window>().unwrap_err().to_string();
            assert!(message.contains("CENTRE:WIDTH"), "{message}");
        }
    }

    #[test]
    fn levels_by_hand() {
        // The standard's own example: centre 2048, width 4096 spreads 0 to 4095.
        assert_eq!(greys(&[0.0, 4095.0, 2047.5], 2048.0, 4096.0, Curve::Linear), [0, 255, 128]);
        assert_eq!(greys(&[-0.5, 9.0, 4.5], 9.0, 1.0, Curve::Linear), [0, 255, 0]);
        let window: Window = "50:100".parse().unwrap();
        assert_eq!(window.greys(&[-1.0, 0.0, 20.0, 100.0, 300.0, f32::NAN], |_| false), [0, 0, 51, 255, 255, 0]);
    }

    #[test]
    fn percentiles_leave_padding_out() {
        let values: Vec<f32> = (0..=100).map(|value| value as f32).chain([-2000.0]).collect();
        let window: Window = "p10:90".parse().unwrap();
        let found = window.greys(&values, |at| at == 101);
        assert_eq!((found[10], found[50], found[90], found[101]), (0, 128, 255, 0));
        assert_eq!(Window::Full.greys(&values, |at| at == 101)[100], 255);
        assert_eq!(Window::Full.greys(&[7.0, 7.0], |_| false), [0, 0]);
    }
}
