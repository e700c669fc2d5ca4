//! Both towers once more, as plain loops in double precision over one example: slow, obvious, and sharing no line with
//! the crate under test. Adapters are written into it as edits of rows, the way their papers describe them.

use burn::tensor::Tensor;
use inarch_core::backbone::{
    BackboneSpec, BlockSite, BranchSite, LinearSite, Projection, StateDict, Tower, TransformerSpec, values,
};

/// Tokens by width.
pub(crate) type Rows = Vec<Vec<f64>>;

/// What an adapter does to one example.
pub(crate) trait Edits {
    /// The input tokens of a block; of block 0 before positions (text) or before the first normalisation (image).
    fn tokens(&self, _at: BlockSite, rows: Rows) -> Rows {
        rows
    }

    /// Queries, keys or values; keys and values may become longer at their front.
    fn attention(&self, _at: BlockSite, _projection: Projection, rows: Rows) -> Rows {
        rows
    }

    /// What a residual branch adds, given the stream it read.
    fn branch(&self, _at: BranchSite, _input: &Rows, output: Rows) -> Rows {
        output
    }
}

impl Edits for () {}

/// The towers.
pub(crate) struct Reference {
    spec: BackboneSpec,
    tensors: StateDict,
}

/// The values of some rows, one after the other.
pub(crate) fn flat(rows: &[Vec<f64>]) -> Vec<f32> {
    rows.iter().flatten().map(|value| *value as f32).collect()
}

/// A matrix as rows.
pub(crate) fn rows_of(matrix: Tensor<2>) -> Rows {
    let [_, width] = matrix.dims();
    values(matrix).chunks(width).map(|row| row.iter().map(|value| f64::from(*value)).collect()).collect()
}

/// `rows W` with a weight `[in, out]`.
pub(crate) fn product(rows: &Rows, weight: &Rows) -> Rows {
    let column = |row: &Vec<f64>, at: usize| row.iter().zip(weight).map(|(value, weight)| value * weight[at]).sum();
    rows.iter().map(|row| (0..weight[0].len()).map(|at| column(row, at)).collect()).collect()
}

/// The canonical name of a linear layer, without `.weight`.
pub(crate) fn layer_name(at: LinearSite) -> String {
    match at {
        LinearSite::Head(Tower::Image) => "visual_projection".into(),
        LinearSite::Head(Tower::Text) => "text_projection".into(),
        LinearSite::Trunk(_) => panic!("no trunk stands in this reference: {at}"),
        LinearSite::Block(BlockSite { tower, block }, projection) => {
            let tower = if tower == Tower::Image { "vision_model" } else { "text_model" };
            let part = match projection {
                Projection::Up | Projection::Down => "mlp",
                _ => "self_attn",
            };
            format!("{tower}.encoder.layers.{block}.{part}.{}", projection.name())
        }
    }
}

impl Reference {
    pub(crate) fn new(spec: &BackboneSpec, tensors: StateDict) -> Self {
        Self { spec: spec.clone(), tensors }
    }

    fn vector(&self, name: &str) -> Vec<f64> {
        self.tensors[name].data.iter().map(|value| f64::from(*value)).collect()
    }

    fn matrix(&self, name: &str) -> Rows {
        let tensor = &self.tensors[name];
        self.vector(name).chunks(tensor.data.len() / tensor.shape[0]).map(<[f64]>::to_vec).collect()
    }

    /// `x W^T + b` with a weight `[out, in]`; a layer without bias has no such tensor.
    fn linear(&self, name: &str, rows: &Rows) -> Rows {
        let weight = self.matrix(&format!("{name}.weight"));
        let bias = format!("{name}.bias");
        let bias = if self.tensors.contains_key(&bias) { self.vector(&bias) } else { vec![0.0; weight.len()] };
        rows.iter()
            .map(|row| weight.iter().zip(&bias).map(|(weight, bias)| dot(row, weight) + bias).collect())
            .collect()
    }

    fn norm(&self, name: &str, spec: &TransformerSpec, rows: &Rows) -> Rows {
        let (gain, bias) = (self.vector(&format!("{name}.weight")), self.vector(&format!("{name}.bias")));
        let normalise = |row: &Vec<f64>| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let deviation = (variance + spec.epsilon()).sqrt();
            row.iter()
                .zip(gain.iter().zip(&bias))
                .map(|(value, (gain, bias))| (value - mean) / deviation * gain + bias)
                .collect()
        };
        rows.iter().map(normalise).collect()
    }

    fn block(&self, at: BlockSite, rows: Rows, edits: &dyn Edits) -> Rows {
        let (name, spec, causal) = match at.tower {
            Tower::Image => ("vision_model", &self.spec.image.transformer, false),
            Tower::Text => ("text_model", &self.spec.text.transformer, true),
        };
        let name = format!("{name}.encoder.layers.{}", at.block);
        let normed = self.norm(&format!("{name}.layer_norm1"), spec, &rows);
        let [query, key, value] = [Projection::Query, Projection::Key, Projection::Value].map(|projection| {
            let rows = self.linear(&format!("{name}.self_attn.{}", projection.name()), &normed);
            edits.attention(at, projection, rows)
        });
        let attended = attend(&query, &key, &value, spec.heads, causal);
        let output = self.linear(&format!("{name}.self_attn.out_proj"), &attended);
        let output = edits.branch(BranchSite::Attention(at), &rows, output);
        let rows = add(&rows, &output);

        let normed = self.norm(&format!("{name}.layer_norm2"), spec, &rows);
        let mut hidden = self.linear(&format!("{name}.mlp.fc1"), &normed);
        // Quick-GELU, as in `clip_tiny/quick`.
        hidden.iter_mut().flatten().for_each(|value| *value /= 1.0 + (-1.702 * *value).exp());
        let output = self.linear(&format!("{name}.mlp.fc2"), &hidden);
        let output = edits.branch(BranchSite::Mlp(at), &rows, output);
        add(&rows, &output)
    }

    /// Features of some images and texts, as [`features`](super::features) gives them.
    pub(crate) fn features(&self, pixels: Tensor<4>, rows: &[Vec<u32>], edits: &dyn Edits) -> [Rows; 2] {
        let [_, channels, height, width] = pixels.dims();
        let pixels = values(pixels);
        let image = pixels.chunks(channels * height * width).map(|pixels| self.image(pixels, edits)).collect();
        [image, rows.iter().map(|ids| self.text(ids, edits)).collect()]
    }

    /// The feature of one image, `3 * size * size` values.
    pub(crate) fn image(&self, pixels: &[f32], edits: &dyn Edits) -> Vec<f64> {
        let (size, patch) = (self.spec.image.size, self.spec.image.patch);
        let kernel = self.matrix("vision_model.embeddings.patch_embedding.weight");
        let mut rows = vec![self.vector("vision_model.embeddings.class_embedding")];
        for top in (0..size).step_by(patch) {
            for left in (0..size).step_by(patch) {
                let mut window = Vec::new();
                for channel in 0..3 {
                    for row in top..top + patch {
                        let start = (channel * size + row) * size + left;
                        window.extend(pixels[start..start + patch].iter().map(|value| f64::from(*value)));
                    }
                }
                rows.push(kernel.iter().map(|kernel| dot(kernel, &window)).collect());
            }
        }
        rows = add(&rows, &self.matrix("vision_model.embeddings.position_embedding.weight"));
        let tower = Tower::Image;
        let spec = &self.spec.image.transformer;
        for block in 0..spec.depth {
            rows = edits.tokens(BlockSite { tower, block }, rows);
            if block == 0 {
                rows = self.norm("vision_model.pre_layrnorm", spec, &rows);
            }
            rows = self.block(BlockSite { tower, block }, rows, edits);
        }
        let class = self.norm("vision_model.post_layernorm", spec, &vec![rows[0].clone()]);
        self.linear("visual_projection", &class).remove(0)
    }

    /// The feature of one text, begin and end token included.
    pub(crate) fn text(&self, ids: &[u32], edits: &dyn Edits) -> Vec<f64> {
        let table = self.matrix("text_model.embeddings.token_embedding.weight");
        let positions = self.matrix("text_model.embeddings.position_embedding.weight");
        let mut rows: Rows = ids.iter().map(|id| table[*id as usize].clone()).collect();
        let tower = Tower::Text;
        let spec = &self.spec.text.transformer;
        for block in 0..spec.depth {
            rows = edits.tokens(BlockSite { tower, block }, rows);
            if block == 0 {
                rows = add(&rows, &positions);
            }
            rows = self.block(BlockSite { tower, block }, rows, edits);
        }
        let end = self.norm("text_model.final_layer_norm", spec, &vec![rows[ids.len() - 1].clone()]);
        self.linear("text_projection", &end).remove(0)
    }
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

fn add(left: &Rows, right: &Rows) -> Rows {
    left.iter()
        .zip(right)
        .map(|(left, right)| left.iter().zip(right).map(|(left, right)| left + right).collect())
        .collect()
}

fn attend(query: &Rows, key: &Rows, value: &Rows, heads: usize, causal: bool) -> Rows {
    let width = query[0].len() / heads;
    let rows = query.len();
    let mut output = vec![Vec::new(); rows];
    for head in (0..heads).map(|head| head * width..(head + 1) * width) {
        for (at, query) in query.iter().enumerate() {
            let seen = if causal { key.len() - rows + at + 1 } else { key.len() };
            let scores: Vec<f64> = key[..seen]
                .iter()
                .map(|key| (dot(&query[head.clone()], &key[head.clone()]) / (width as f64).sqrt()).exp())
                .collect();
            let total: f64 = scores.iter().sum();
            for channel in head.clone() {
                let sum: f64 = scores.iter().zip(value).map(|(score, value)| score * value[channel]).sum();
                output[at].push(sum / total);
            }
        }
    }
    output
}
