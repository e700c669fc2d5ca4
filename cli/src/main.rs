//! x
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;
use inarch_recipes::*;
use std::path::Path;
struct P(std::sync::Mutex<(u64, std::time::Instant)>);
impl Progress for P {
    fn advance(&self, u: u64, note: &str) { let mut g = self.0.lock().unwrap(); g.0 += u; if g.0 % 20 == 0 { eprintln!("{} {} {:?}", g.0, note, g.1.elapsed()); g.1 = std::time::Instant::now(); } }
    fn say(&self, line: &str) { eprintln!("{line}") }
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let r: PretrainRecipe = toml::from_str(&std::fs::read_to_string(&a[1]).unwrap()).unwrap();
    let d = inarch_core::data::open_dataset(Path::new(&a[2]), None).unwrap();
    let p = PairSet::from_labels(&d, &r.captions).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let dev = inarch_core::device("cpu").unwrap();
    let out = pretrain(&r, &p, Path::new(&a[3]), Path::new(&a[4]), &dev, Control { progress: &P(std::sync::Mutex::new((0, std::time::Instant::now()))), stop: &stop });
    eprintln!("{:?}", out.map_err(|e| e.to_string()));
}
