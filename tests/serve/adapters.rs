//! Adapters come, change and go while the server runs.

use std::path::Path;

use inarch_peft::Artifact;
use inarch_serve::{Preload, Server, Settings};
use serde_json::json;

use super::client::encoded;
use super::world::{agree, alone, backbone, picture, saved, serve, settings, variant};
use crate::contract::case::configured;
use crate::support::{copied, edit_json, tiny};

fn rooted(root: &Path) -> Settings {
    Settings { adapter_root: Some(root.to_path_buf()), ..settings() }
}

#[test]
fn adapters_are_loaded_replaced_and_unloaded() {
    let root = tempfile::tempdir().expect("a folder");
    let (_, first) = variant(root.path(), "first", &configured("lora", ""), 0.2);
    let (_, second) = variant(root.path(), "second", &configured("lora", ""), 0.4);
    let (_running, client) = serve(&[], rooted(root.path()));
    let picture = picture(2);
    assert_eq!(client.classify("live", &picture).fault(), (404, "unknown_model".into()));

    let made = client.post("/v1/adapters", &json!({ "name": "live", "path": "first" }));
    assert_eq!(made.status, 201, "{}", made.text);
    let made = made.json();
    assert_eq!(
        (&made["method"], &made["resident"], &made["parent"]),
        (&json!("lora"), &json!(true), &json!(tiny().name()))
    );
    let again = client.post("/v1/adapters", &json!({ "name": "twin", "path": "first" })).json();
    assert_eq!((&again["id"], &again["digest"]), (&json!("twin"), &made["digest"]), "the name that was asked for");
    assert_eq!(client.delete("/v1/adapters/twin").status, 204);
    let before = client.classify("live", &picture).ok();
    agree("first", &before["predictions"], &alone(Some(&first), &picture, &[]));

    let taken = client.post("/v1/adapters", &json!({ "name": "live", "path": "second" }));
    assert_eq!(taken.fault(), (409, "conflict".into()));
    let elsewhere =
        json!({ "name": "live", "path": "second", "expected_digest": format!("sha256:{}", "0".repeat(64)) });
    assert_eq!(client.post("/v1/adapters", &elsewhere).fault(), (409, "conflict".into()));
    let swap = json!({ "name": "live", "path": "second", "expected_digest": made["digest"] });
    assert_eq!(client.post("/v1/adapters", &swap).status, 201);
    let after = client.classify("live", &picture).ok();
    assert_ne!(after["version"], before["version"]);
    agree("second", &after["predictions"], &alone(Some(&second), &picture, &[]));
    let by_digest = client.get(&format!("/v1/models/{}", made["digest"].as_str().expect("a digest")));
    assert_eq!(by_digest.status, 404, "the first version has no name any more");

    assert_eq!(client.delete("/v1/adapters/live").status, 204);
    assert_eq!(client.delete("/v1/adapters/live").fault().0, 404);
    assert_eq!(client.classify("live", &picture).fault().0, 404);
}

#[test]
fn an_adapter_that_left_memory_is_not_kept_by_its_classes() {
    let root = tempfile::tempdir().expect("a folder");
    saved(root.path(), "busy", &configured("lora", ""));
    let (_running, client) = serve(&[], rooted(root.path()));
    let load = || client.post("/v1/adapters", &json!({ "name": "busy", "path": "busy" }));
    assert_eq!(load().status, 201);
    // Its classes are made, and stay in memory.
    client.classify("busy", &picture(1)).ok();
    assert_eq!(client.delete("/v1/adapters/busy").status, 204);
    assert_eq!(load().status, 201);
    let images = vec![encoded(&picture(1)); 64];
    for _ in 0..16 {
        client.post("/v1/classify", &json!({ "model": "busy", "images": images })).ok();
    }
    let card = client.get("/v1/models/busy").ok();
    assert_eq!(card["folded"], true, "what answers, and is folded, is the copy in memory: {card}");
}

#[test]
fn clients_of_vllm_find_their_routes() {
    let root = tempfile::tempdir().expect("a folder");
    variant(root.path(), "one", &configured("lora", ""), 0.2);
    variant(root.path(), "two", &configured("lora", ""), 0.4);
    let (_running, client) = serve(&[], rooted(root.path()));
    let load = |path: &str, inplace: bool| {
        client.post("/v1/load_lora_adapter", &json!({ "lora_name": "x", "lora_path": path, "load_inplace": inplace }))
    };
    assert_eq!((load("one", false).status, load("two", false).status, load("two", true).status), (200, 409, 200));
    let models = client.get("/v1/models").ok();
    assert_eq!(models["data"][1]["id"], "x");
    assert_eq!(models["data"][1]["parent"], models["data"][0]["id"]);
    let unload = client.post("/v1/unload_lora_adapter", &json!({ "lora_name": "x" }));
    assert!(unload.status == 200 && unload.text.contains("removed successfully"), "{unload:?}");
}

#[test]
fn paths_lead_nowhere_else() {
    let root = tempfile::tempdir().expect("a folder");
    let outside = tempfile::tempdir().expect("a folder");
    saved(outside.path(), "secret", &configured("lora", ""));
    #[cfg(unix)]
    std::os::unix::fs::symlink(outside.path().join("secret"), root.path().join("link")).expect("a link");
    let secret = outside.path().join("secret").display().to_string();
    let (_running, client) = serve(&[], rooted(root.path()));
    for path in [secret.as_str(), "../secret", "link", "missing", "", "."] {
        let reply = client.post("/v1/adapters", &json!({ "name": "a", "path": path }));
        assert!([403, 422].contains(&reply.fault().0), "`{path}`: {reply:?}");
        assert!(!reply.text.contains(&outside.path().display().to_string()), "{}", reply.text);
    }
    let (_running, closed) = serve(&[], settings());
    let reply = closed.post("/v1/adapters", &json!({ "name": "a", "path": secret }));
    assert_eq!(reply.fault(), (403, "path_not_allowed".into()));
    for name in ["", "a b", "../a", tiny().name()] {
        let reply = client.post("/v1/adapters", &json!({ "name": name, "path": "link" }));
        assert!([400, 403].contains(&reply.fault().0), "`{name}`: {reply:?}");
    }
}

#[test]
fn what_does_not_belong_to_the_backbone_is_refused() {
    let root = tempfile::tempdir().expect("a folder");
    let folder = saved(root.path(), "foreign", &configured("lora", ""));
    edit_json(&folder.join("adapter.json"), |manifest| {
        manifest["backbone"]["digest"] = format!("sha256:{}", "1".repeat(64)).into();
    });
    let bind = |folder: &Path| {
        let preload = [Preload::Folder { name: "foreign".into(), folder: folder.to_path_buf() }];
        Server::bind(backbone(), None, &preload, settings()).err().expect("a refusal").to_string()
    };
    assert!(bind(&folder).starts_with("refused: backbone of adapter"), "{}", bind(&folder));
    let (_running, client) = serve(&[], rooted(root.path()));
    let reply = client.post("/v1/adapters", &json!({ "name": "a", "path": "foreign" }));
    assert_eq!(reply.fault(), (409, "incompatible".into()));

    let folder = saved(root.path(), "damaged", &configured("lora", ""));
    let mut bytes = std::fs::read(folder.join("adapter.safetensors")).expect("a file");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(folder.join("adapter.safetensors"), bytes).expect("a writable file");
    let reply = client.post("/v1/adapters", &json!({ "name": "a", "path": "damaged" }));
    assert_eq!(reply.fault(), (422, "unreadable_adapter".into()));
}

#[test]
fn adapters_of_peft_are_served() {
    let folder = copied("parity/hf_peft/lora");
    let preload = [Preload::Folder { name: "peft".into(), folder: folder.path().to_path_buf() }];
    let running = Server::bind(backbone(), None, &preload, settings()).expect("a valid adapter").spawn();
    let client = super::client::Client::new(running.address());
    let (picture, others) = (picture(3), ["cat", "dog"].map(String::from));
    let artifact = inarch_peft::read_peft(folder.path(), tiny()).expect("a valid adapter");
    let ask = json!({ "model": "peft", "image": encoded(&picture), "classes": others, "top_k": 9 });
    let answer = client.post("/v1/classify", &ask).ok();
    agree("peft", &answer["predictions"], &alone(Some(&artifact), &picture, &others));
    assert_eq!(client.classify("peft", &picture).fault(), (400, "invalid_request".into()), "it knows no classes");
}

#[test]
fn a_folder_that_changes_is_not_served_under_its_old_version() {
    let root = tempfile::tempdir().expect("a folder");
    let (folder, _) = variant(root.path(), "a", &configured("lora", ""), 0.2);
    let (_, others) = variant(root.path(), "b", &configured("lora", ""), 0.4);
    // So little memory that nothing stays in it.
    let (_running, client) = serve(&[], Settings { adapter_bytes: 40_000, ..rooted(root.path()) });
    assert_eq!(client.post("/v1/adapters", &json!({ "name": "a", "path": "a" })).status, 201);
    others.save(&folder).expect("a writable folder");
    for name in ["b", "b2", "b3", "b4"] {
        let _ = client.post("/v1/adapters", &json!({ "name": name, "path": "b" }));
    }
    let reply = client.classify("a", &picture(1));
    // Either the version that was loaded is still in memory, or the server says that its files have changed.
    match reply.status {
        200 => agree("kept", &reply.json()["predictions"], &alone(Some(&first(root.path())), &picture(1), &[])),
        _ => assert_eq!(reply.fault(), (409, "changed".into())),
    }
}

/// The adapter that `a` was at first.
fn first(root: &Path) -> Artifact {
    variant(root, "again", &configured("lora", ""), 0.2).1
}

#[test]
fn prompts_show_their_nearest_words() {
    let root = tempfile::tempdir().expect("a folder");
    let folders = ["coop", "lora"]
        .map(|name| saved(root.path(), name, &configured(name, if name == "coop" { "context = 4" } else { "" })));
    let (_running, client) = serve(&folders, settings());
    let words = client.get("/v1/models/coop/words?count=2").ok();
    let words = words.as_array().expect("a list");
    assert_eq!(words.len(), 4, "one for each context token");
    let distances = words[0]["nearest"].as_array().expect("pairs");
    assert!(distances.len() == 2 && distances[0][1].as_f64() <= distances[1][1].as_f64(), "{distances:?}");
    assert_eq!(client.get("/v1/models/lora/words").ok(), json!([]));
}
