//! Statistics on disk: one safetensors file with sums in double precision.

use std::collections::{BTreeMap, HashMap};

use nalgebra::{DMatrix, DVector};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};

use super::statistics::{ClassSums, Part, Second, Settings, Statistics};
use crate::error::Result;

/// The one entry of the header; more would come in another order every time.
const KEY: &str = "statistics";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    schema: u32,
    settings: Settings,
    /// Of both parts: class names and numbers of samples, in the order of the rows.
    fit: Vec<(String, u64)>,
    held: Vec<(String, u64)>,
    /// Ids and classes of stored samples, in the order of the rows.
    samples: Vec<(String, String)>,
}

impl Statistics {
    /// The file's bytes; equal statistics give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let counts = |part: &Part| part.classes.iter().map(|(class, sums)| (class.clone(), sums.count)).collect();
        let header = Header {
            schema: 1,
            settings: self.settings,
            fit: counts(&self.fit),
            held: counts(&self.held),
            samples: self.samples.iter().map(|(id, (class, _))| (id.clone(), class.clone())).collect(),
        };
        let width = self.settings.expansion.width();
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>, Dtype)> = Vec::new();
        let mut put = |name: &str, shape: Vec<usize>, values: &mut dyn Iterator<Item = f64>| {
            tensors.push((name.into(), shape, values.flat_map(f64::to_le_bytes).collect(), Dtype::F64));
        };
        for (name, part) in [("fit", &self.fit), ("held", &self.held)] {
            let classes = part.classes.len();
            let mut sums = part.classes.values().flat_map(|sums| sums.sum.iter().copied());
            put(&format!("{name}.sums"), vec![classes, width], &mut sums);
            if let Some(gram) = &part.gram {
                put(&format!("{name}.gram"), vec![width * (width + 1) / 2], &mut packed(gram));
            }
            if self.settings.second == Second::ClassGrams {
                let mut grams = part.classes.values().filter_map(|sums| sums.gram.as_ref()).flat_map(packed);
                put(&format!("{name}.grams"), vec![classes, width * (width + 1) / 2], &mut grams);
            }
        }
        let samples: Vec<u8> = self.samples.values().flat_map(|(_, row)| row).flat_map(|v| v.to_le_bytes()).collect();
        tensors.push(("samples".into(), vec![self.samples.len(), self.settings.expansion.dim], samples, Dtype::F32));
        let views = tensors.iter().map(|(name, shape, bytes, dtype)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).expect("shape and bytes were made together");
            (name.as_str(), view)
        });
        let text = serde_json::to_string(&header).expect("plain data");
        serialize(views, Some(HashMap::from([(KEY.to_string(), text)]))).expect("plain tensors")
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let wrong = |reason: String| crate::Error::from(inarch_core::Error::invalid("statistics file", reason));
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| wrong(error.to_string()))?;
        let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
        let text = text.ok_or_else(|| wrong(format!("its header has no `{KEY}`")))?;
        let header: Header = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if header.schema != 1 {
            return Err(wrong(format!("it is of version {}, this program reads version 1", header.schema)));
        }
        header.settings.expansion.check()?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| wrong(error.to_string()))?;
        let read = |name: &str, shape: &[usize]| -> Result<Vec<f64>> {
            let tensor = tensors.tensor(name).map_err(|error| wrong(error.to_string()))?;
            if tensor.shape() != shape || tensor.dtype() != Dtype::F64 {
                let found = format!("{:?} {:?}", tensor.dtype(), tensor.shape());
                return Err(wrong(format!("tensor `{name}`: expected F64 {shape:?}, found {found}")));
            }
            let values: Vec<f64> = tensor.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
            match values.iter().position(|value| !value.is_finite()) {
                Some(at) => Err(wrong(format!("tensor `{name}` holds {} at element {at}", values[at]))),
                None => Ok(values),
            }
        };
        let Settings { expansion, second } = header.settings;
        let (width, triangle) = (expansion.width(), expansion.width() * (expansion.width() + 1) / 2);
        let part = |name: &str, counts: &[(String, u64)]| -> Result<Part> {
            let sums = read(&format!("{name}.sums"), &[counts.len(), width])?;
            let grams = match second {
                Second::ClassGrams => Some(read(&format!("{name}.grams"), &[counts.len(), triangle])?),
                _ => None,
            };
            let mut classes = BTreeMap::new();
            for (row, (class, count)) in counts.iter().enumerate() {
                let sum = DVector::from_column_slice(&sums[row * width..(row + 1) * width]);
                let gram = grams.as_ref().map(|grams| unpacked(&grams[row * triangle..(row + 1) * triangle], width));
                classes.insert(class.clone(), ClassSums { count: *count, sum, gram });
            }
            let gram = match second {
                Second::Gram if !counts.is_empty() => {
                    Some(unpacked(&read(&format!("{name}.gram"), &[triangle])?, width))
                }
                _ => None,
            };
            Ok(Part { classes, gram })
        };
        let (fit, held) = (part("fit", &header.fit)?, part("held", &header.held)?);
        let stored = tensors.tensor("samples").map_err(|error| wrong(error.to_string()))?;
        if stored.dtype() != Dtype::F32 || stored.shape() != [header.samples.len(), expansion.dim] {
            return Err(wrong(format!("tensor `samples` is {:?} {:?}", stored.dtype(), stored.shape())));
        }
        let values: Vec<f32> = stored.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let rows = values.chunks_exact(expansion.dim.max(1)).map(<[f32]>::to_vec);
        let samples = header.samples.into_iter().zip(rows).map(|((id, class), row)| (id, (class, row))).collect();
        Ok(Self { settings: header.settings, fit, held, samples })
    }
}

/// The lower triangle of a symmetric matrix, column by column.
fn packed(matrix: &DMatrix<f64>) -> impl Iterator<Item = f64> + '_ {
    (0..matrix.ncols()).flat_map(move |column| (column..matrix.nrows()).map(move |row| matrix[(row, column)]))
}

fn unpacked(values: &[f64], width: usize) -> DMatrix<f64> {
    let mut matrix = DMatrix::zeros(width, width);
    let mut values = values.iter();
    for column in 0..width {
        for row in column..width {
            let value = values.next().copied().unwrap_or(0.0);
            matrix[(row, column)] = value;
            matrix[(column, row)] = value;
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use inarch_core::Seed;

    use super::super::{Analytic, FecamConfig, RailConfig, RailDualConfig, Rows, SimpleCilConfig};
    use super::Statistics;

    #[test]
    fn what_is_written_is_read_and_damage_is_refused() {
        let rail = RailConfig { projections: 9, ..RailConfig::default() };
        let methods: [&dyn Analytic; 4] =
            [&rail, &SimpleCilConfig::default(), &FecamConfig::default(), &RailDualConfig::default()];
        for method in methods {
            let ids: Vec<String> = (0..20).map(|at| at.to_string()).collect();
            let classes: Vec<String> = (0..20).map(|at| format!("class {}", at % 2)).collect();
            let mut statistics = method.statistics(4).unwrap();
            statistics.add(&Rows { ids: &ids, classes: &classes, features: &Seed::new(1).normals(80, 1.0) }).unwrap();
            let bytes = statistics.encode();
            let again = Statistics::decode(&bytes).unwrap();
            assert_eq!(again.distance(&statistics), 0.0);
            assert_eq!(again.encode(), bytes);
            assert!(Statistics::decode(&bytes[..bytes.len() - 1]).is_err());
            assert!(Statistics::decode(b"nonsense").is_err());
        }
    }
}
