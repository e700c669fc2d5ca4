//! The towers alone, on values in memory: what `peers/speed.py` compares as `encode-pixels`, and what to run under a profiler.
//!
//!     cargo run --release --workspace --bin bench-work -- BACKBONE image 32 5

use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use clap::{Parser, ValueEnum};
use inarch_core::backbone::{BlockSite, Entry, Frozen, Pass, Sites, Tower};
use inarch_core::checkpoint::open_backbone;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Times passes through one tower
#[derive(Parser)]
struct Arguments {
    /// Folder of a backbone
    backbone: PathBuf,
    /// What to run
    work: Work,
    /// Images, or texts of the whole context
    rows: usize,
    /// Passes
    runs: usize,
    /// Where to run: `cpu`, or what the features of this package add
    #[arg(long, default_value = "cpu")]
    device: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Work {
    /// Images to features
    Image,
    /// Texts to features
    Text,
    /// Images forward, and back to a shift of their tokens
    ImageStep,
    /// Texts forward, and back to a shift of their tokens
    TextStep,
}

/// Adds a trained vector to every token of a tower's input: the least that makes all blocks run backward.
struct Shift {
    tower: Tower,
    by: Tensor<3>,
}

impl Sites for Shift {
    fn entry(&self, tower: Tower) -> Entry {
        if tower == self.tower { Entry::Tokens } else { Entry::Never }
    }

    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, _pass: &Pass<'_>) -> Tensor<3> {
        if at == BlockSite::new(self.tower, 0) { tokens + self.by.clone() } else { tokens }
    }
}

#[expect(clippy::print_stdout, reason = "the figures")]
fn main() -> Result<(), Fault> {
    let Arguments { backbone, work, rows, runs, device } = Arguments::parse();
    let device = inarch_core::device(&device)?;
    let backbone = open_backbone(&backbone, &device)?;
    let tower = match work {
        Work::Image | Work::ImageStep => Tower::Image,
        Work::Text | Work::TextStep => Tower::Text,
    };
    let size = backbone.spec().image.size;
    let value = |index: usize| ((index * 7919) % 1000) as f32 / 500.0 - 1.0;
    let pixels = backbone.pixels((0..rows * 3 * size * size).map(value).collect(), [rows, 3, size, size])?;
    let context = backbone.spec().text.context;
    let last = backbone.spec().text.vocabulary as u32 - 1;
    let text = |row: usize| {
        let words = (2..context).map(|token| ((row * 31 + token * 17) as u32) % (last - 1));
        [last - 1].into_iter().chain(words).chain([last]).collect()
    };
    let texts: Vec<Vec<u32>> = (0..rows).map(text).collect();
    let by = TensorData::new(vec![0.0f32; backbone.width(tower)], [1, 1, backbone.width(tower)]);
    let shift = Shift { tower, by: Tensor::from_data(by, &device.clone().autodiff()).require_grad() };
    let sites: &dyn Sites = if matches!(work, Work::ImageStep | Work::TextStep) { &shift } else { &Frozen };
    for _ in 0..runs {
        let start = Instant::now();
        let pass = Pass::evaluate();
        let features = match tower {
            Tower::Image => backbone.encode_image(pixels.clone(), sites, &pass),
            Tower::Text => backbone.encode_text(&texts, sites, &pass),
        };
        let sum = features.abs().sum();
        if sum.is_autodiff() {
            sum.clone().backward();
        }
        let value = sum.into_scalar::<f32>();
        let name = work.to_possible_value().map(|name| name.get_name().to_string()).unwrap_or_default();
        println!("{name} {rows} {:.3}s value {value}", start.elapsed().as_secs_f64());
    }
    Ok(())
}
