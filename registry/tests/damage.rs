//! Damaged and hostile content: found, named, refused; never a panic, never half of something.

use inarch_registry::{Alias, Error, Expect, Manifest, Name, Registry};

use crate::support::{Draws, Shelf};

/// Every blob in turn loses a byte, gains one, has one changed, or is gone.
#[test]
fn every_damaged_blob_is_found_and_publishing_again_heals_it() {
    let shelf = Shelf::new();
    let version = shelf.publish("chest", 1).version;
    let registry = &shelf.registry;
    let blobs = registry.blobs();
    let whole: Vec<_> = blobs.list().expect("blobs");
    assert_eq!(whole.len(), 5);
    for digest in whole {
        let path = blobs.path(&digest);
        let good = std::fs::read(&path).expect("a blob");
        let mut changed = good.clone();
        changed[good.len() / 2] ^= 1;
        let variants = [Some(changed), Some(good[..good.len() - 1].to_vec()), Some([&good[..], b" "].concat()), None];
        for variant in variants {
            std::fs::remove_file(&path).expect("removed");
            if let Some(bytes) = &variant {
                std::fs::write(&path, bytes).expect("damaged");
            }
            let report = registry.verify().expect("a verification");
            assert!(!report.problems.is_empty(), "{}", digest.short());
            assert!(registry.checkout(&version).is_err());
            if variant.is_none() {
                std::fs::write(&path, b"").expect("something to be removed");
            }
        }
        if digest == version.digest {
            std::fs::remove_file(&path).expect("removed");
            std::fs::write(&path, &good).expect("restored");
        } else {
            let _ = shelf.publish("chest", 1);
        }
        shelf.assert_sound();
    }
}

#[test]
fn files_that_were_changed_in_a_checkout_are_laid_out_again() {
    let shelf = Shelf::new();
    let version = shelf.publish("chest", 1).version;
    let folder = shelf.registry.checkout(&version).expect("a checkout").folder().to_path_buf();
    let file = folder.join("recipe.toml");
    std::fs::remove_file(&file).expect("removed");
    std::fs::write(&file, "method = \"evil\"\n").expect("replaced");
    let checkout = shelf.registry.checkout(&version).expect("a checkout");
    assert_eq!(std::fs::read_to_string(checkout.folder().join("recipe.toml")).expect("a file"), "method = \"lora\"\n");
}

#[test]
fn a_folder_with_something_else_is_not_taken_over() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("thesis.tex"), "years").expect("a file");
    let error = Registry::open(folder.path()).expect_err("not ours").to_string();
    assert!(error.contains("thesis.tex"), "{error}");
    assert!(!folder.path().join("oci-layout").exists());
}

const DESCRIPTOR: &str =
    r#"{"mediaType":"x","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;

fn manifest(layers: &str, annotations: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{DESCRIPTOR},"layers":[{layers}],"annotations":{{{annotations}}}}}"#
    )
}

fn layer(title: &str) -> String {
    let annotations = format!(r#","annotations":{{"org.opencontainers.image.title":{}}}}}"#, serde_json::json!(title));
    format!("{}{annotations}", &DESCRIPTOR[..DESCRIPTOR.len() - 1])
}

#[test]
fn hostile_manifests_are_refused() {
    Manifest::parse(manifest(&layer("adapter.json"), "\"a\":\"b\"").as_bytes(), "good").expect("a good one");
    let twice = format!("{},{}", layer("a"), layer("A"));
    let many = vec![DESCRIPTOR; 300].join(",");
    let huge = DESCRIPTOR.replace("\"size\":2", "\"size\":18446744073709551615");
    let negative = DESCRIPTOR.replace("\"size\":2", "\"size\":-1");
    let escaping = DESCRIPTOR.replace("sha256:44136", "sha256:../../");
    let annotations: Vec<String> = (0..2000).map(|at| format!("\"{at}\":\"\"")).collect();
    let cases = [
        manifest(&layer("../../etc/passwd"), ""),
        manifest(&layer("/etc/passwd"), ""),
        manifest(&layer("a\\b"), ""),
        manifest(&layer("a\0b"), ""),
        manifest(&layer(".lease"), ""),
        manifest(&layer("aux.json"), ""),
        manifest(&twice, ""),
        manifest(&many, ""),
        manifest(&huge, ""),
        manifest(&negative, ""),
        manifest(&escaping, ""),
        manifest("", "\"a\":\"b\",\"a\":\"c\""),
        manifest("", &annotations.join(",")),
        manifest("", "").replace("\"layers\":[]", "\"layers\":[],\"layers\":[]"),
        manifest("", "").replace(":2,\"media", ":1,\"media"),
        "[".repeat(100_000),
        String::new(),
        "null".into(),
    ];
    for text in cases {
        let shown: String = text.chars().take(200).collect();
        assert!(Manifest::parse(text.as_bytes(), "hostile").is_err(), "{shown}");
    }
    let large = manifest("", "").replace('}', &format!("}}{}", " ".repeat(5 << 20)));
    assert!(matches!(Manifest::parse(large.as_bytes(), "hostile"), Err(Error::TooLarge { .. })));
}

/// Random changes of a valid manifest: an answer, whatever it is, and what is accepted stays what it was.
#[test]
fn no_mutation_of_a_manifest_makes_it_panic() {
    let good = manifest(&[layer("adapter.json"), layer("adapter.safetensors")].join(","), "\"a\":\"b\"").into_bytes();
    let mut draws = Draws::new(5);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=draws.below(4) {
            if bytes.is_empty() {
                break;
            }
            let at = draws.below(bytes.len() as u64) as usize;
            match draws.below(4) {
                0 => bytes[at] = draws.below(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"{}[],:\"0129eE.-\\"[draws.below(16) as usize]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        if let Ok(manifest) = Manifest::parse(&bytes, "mutated") {
            accepted += 1;
            assert_eq!(Manifest::parse(&manifest.encode(), "again").expect("what was accepted"), manifest);
        }
    }
    assert!(accepted > 0, "some changes are harmless");
}

/// Whatever happens to the log of an alias, it says something that was once true, or nothing; and it can be moved again.
#[test]
fn a_damaged_alias_log_never_says_what_was_never_true() {
    let shelf = Shelf::new();
    let registry = &shelf.registry;
    let (name, prod): (Name, Alias) = ("chest".parse().expect("a name"), "prod".parse().expect("an alias"));
    for seed in 1..=3 {
        shelf.publish("chest", seed);
        registry.tag(&name, &prod, Some(seed), Expect::Any, "").expect("tagged");
    }
    let path = registry.root().join("names/chest/aliases/prod");
    let good = std::fs::read(&path).expect("a log");
    let mut draws = Draws::new(8);
    for case in 0..300 {
        let mut bytes = good.clone();
        let at = draws.below(bytes.len() as u64) as usize;
        match draws.below(3) {
            0 => bytes[at] ^= 1 << draws.below(8),
            1 => bytes.truncate(at),
            _ => bytes.extend_from_slice(&good[..at]),
        }
        std::fs::write(&path, &bytes).expect("damaged");
        let says = registry.alias(&name, &prod).expect("readable");
        assert!(says.is_none_or(|number| (1..=3).contains(&number)), "case {case}: {says:?}");
        registry.tag(&name, &prod, Some(2), Expect::Any, "").expect("tagged");
        assert_eq!(registry.alias(&name, &prod).expect("readable"), Some(2), "case {case}");
    }
}
