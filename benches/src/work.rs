//! scratch
use burn::tensor::{Distribution, Tensor, TensorData};
use inarch_core::backbone::*;
use inarch_core::checkpoint::open_backbone;
use std::time::Instant;
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Shift(Tensor<3>, Tensor<3>);
impl Sites for Shift {
    fn entry(&self, _: Tower) -> Entry {
        Entry::Tokens
    }
    fn tokens(&self, at: BlockSite, tokens: Tensor<3>, _: &Pass<'_>) -> Tensor<3> {
        if at.block > 0 {
            return tokens;
        }
        tokens
            + match at.tower {
                Tower::Image => self.0.clone(),
                Tower::Text => self.1.clone(),
            }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let device = inarch_core::device("cpu").unwrap();
    let backbone = open_backbone(std::path::Path::new(&args[1]), &device).unwrap();
    let what = args[2].as_str();
    let rows: usize = args[3].parse().unwrap();
    let runs: usize = args[4].parse().unwrap();
    let data: Vec<f32> = (0..rows * 3 * 224 * 224).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
    let pixels = Tensor::<4>::from_data(TensorData::new(data, [rows, 3, 224, 224]), &device);
    let text: Vec<Vec<u32>> = (0..rows)
        .map(|r| {
            let mut v = vec![49406u32];
            v.extend((0..75).map(|i| ((r * 31 + i * 17) % 40000) as u32));
            v.push(49407);
            v
        })
        .collect();
    let auto = device.clone().autodiff();
    let shift = Shift(
        Tensor::<3>::random([1, 1, 768], Distribution::Normal(0.0, 0.02), &auto).require_grad(),
        Tensor::<3>::random([1, 1, 512], Distribution::Normal(0.0, 0.02), &auto).require_grad(),
    );
    for _ in 0..runs {
        let start = Instant::now();
        let value = match what {
            "image" => {
                backbone.encode_image(pixels.clone(), &Frozen, &Pass::evaluate()).abs().sum().into_scalar::<f32>()
            }
            "text" => backbone.encode_text(&text, &Frozen, &Pass::evaluate()).abs().sum().into_scalar::<f32>(),
            "image-step" | "text-step" => {
                let f = if what == "image-step" {
                    backbone.encode_image(pixels.clone(), &shift, &Pass::evaluate())
                } else {
                    backbone.encode_text(&text, &shift, &Pass::evaluate())
                };
                let loss = f.abs().sum();
                let v = loss.clone().into_scalar::<f32>();
                let g = loss.backward();
                let g = if what == "image-step" { shift.0.grad(&g).unwrap() } else { shift.1.grad(&g).unwrap() };
                println!("grad {:?}", g.abs().sum().into_scalar::<f32>());
                v
            }
            _ => panic!(),
        };
        println!("{what} {rows} {:.3}s value {value}", start.elapsed().as_secs_f64());
    }
}
