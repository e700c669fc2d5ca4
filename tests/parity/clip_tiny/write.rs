//! What is written opens again as the same backbone.

use inarch_core::backbone::{Frozen, Pass};
use inarch_core::checkpoint::{Precision, open_backbone, write_backbone};

use crate::support::{pixels, plain, same, tiny};

#[test]
fn single_precision_keeps_the_identity() {
    let folder = tempfile::tempdir().expect("a folder");
    write_backbone(tiny(), folder.path(), Precision::F32).expect("a writable folder");
    let again = open_backbone(folder.path(), &plain()).expect("what was written");
    assert_eq!(again.digest(), tiny().digest());
    assert_eq!((again.spec(), again.preprocess()), (tiny().spec(), tiny().preprocess()));
    assert_eq!(again.tokenizer().digest(), tiny().tokenizer().digest());

    // The same backbone gives the same bytes.
    let other = tempfile::tempdir().expect("a folder");
    write_backbone(&again, other.path(), Precision::F32).expect("a writable folder");
    for name in ["model.safetensors", "config.json", "preprocessor_config.json", "tokenizer.json"] {
        let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join(name)).expect("a file");
        assert!(read(&folder) == read(&other), "`{name}` is not the same the second time");
    }
}

#[test]
fn half_precision_is_another_backbone_with_nearly_the_same_features() {
    let folder = tempfile::tempdir().expect("a folder");
    write_backbone(tiny(), folder.path(), Precision::F16).expect("a writable folder");
    let again = open_backbone(folder.path(), &plain()).expect("what was written");
    assert_ne!(again.digest(), tiny().digest());
    let features =
        |backbone: &inarch_core::backbone::Backbone| backbone.encode_image(pixels(2), &Frozen, &Pass::evaluate());
    // A float16 has 11 significant bits.
    same("features", features(&again), features(tiny()), 5e-3);
}
