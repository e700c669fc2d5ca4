//! x
#[test]
fn debug() {
    use crate::support::*;
    std::fs::write("/tmp/tok_out.json", tiny().tokenizer().to_bytes().unwrap()).unwrap();
}
