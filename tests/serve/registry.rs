//! A server over a registry that other processes change.

use std::sync::Arc;

use inarch_peft::Artifact;
use inarch_registry::{Expect, GcPolicy, PublishRequest, Registry, SecretKey, Version};
use inarch_serve::{Preload, Running, Server};
use serde_json::json;

use super::client::Client;
use super::world::{agree, alone, backbone, picture, settings, variant};
use crate::contract::case::configured;

fn publish(registry: &Registry, root: &std::path::Path, deviation: f32) -> (Version, Artifact) {
    let (folder, artifact) = variant(root, &format!("d{deviation}"), &configured("lora", ""), deviation);
    let request = PublishRequest::folder("chest".parse().expect("a name"), &folder).expect("an adapter");
    (registry.publish(request).expect("a writable folder").version, artifact)
}

fn serve(registry: &Registry, preload: &[Preload]) -> (Running, Client) {
    let source = Arc::new(registry.clone());
    let running = Server::bind(backbone(), Some(source), preload, settings()).expect("a server").spawn();
    let client = Client::new(running.address());
    (running, client)
}

#[test]
fn aliases_that_move_are_followed_at_once() {
    let root = tempfile::tempdir().expect("a folder");
    let registry = Registry::open(root.path().join("registry")).expect("a registry");
    let (first, one) = publish(&registry, root.path(), 0.2);
    let (second, two) = publish(&registry, root.path(), 0.4);
    let prod = "prod".parse().expect("an alias");
    let tag = |to: &Version| {
        registry.tag(&first.name, &prod, Some(to.number), Expect::Any, "a test").expect("a known version");
    };
    tag(&first);
    let (_running, client) = serve(&registry, &[Preload::Reference("chest@prod".into())]);
    let picture = picture(1);
    let [one, two] = [one, two].map(|artifact| alone(Some(&artifact), &picture, &[]));

    let ask = |reference: &str| client.classify(reference, &picture).ok();
    let answer = ask("chest@prod");
    assert_eq!((&answer["model"], &answer["version"]), (&json!("chest"), &json!("1")));
    agree("prod", &answer["predictions"], &one);
    agree("the newest", &ask("chest")["predictions"], &two);
    agree("by number", &ask("chest@1")["predictions"], &one);
    agree("by digest", &ask(&second.digest.to_string())["predictions"], &two);
    tag(&second);
    agree("moved by another process", &ask("chest@prod")["predictions"], &two);

    let put = |version: &str, expected: Option<&str>| {
        client.put("/v1/adapters/chest/aliases/prod", &json!({ "version": version, "expected": expected }))
    };
    assert_eq!(put("1", Some("1")).fault(), (409, "conflict".into()), "it stands at 2");
    assert_eq!(put("1", Some("2")).ok()["version"], "1");
    agree("moved through the server", &ask("chest@prod")["predictions"], &one);
    assert_eq!(put("7", None).fault(), (404, "unknown_model".into()));
    assert_eq!(put("latest", Some("1")).ok()["version"], "2");
    let spelled = client.put("/v1/adapters/chest/aliases/PROD", &json!({ "version": "1" }));
    assert_eq!(spelled.fault(), (400, "invalid_request".into()));
    let models = client.get("/v1/models").ok();
    assert_eq!((&models["data"][1]["id"], &models["data"][1]["version"]), (&json!("chest"), &json!("2")));
}

#[test]
fn what_nobody_who_is_trusted_signed_is_refused() {
    let root = tempfile::tempdir().expect("a folder");
    let registry = Registry::open(root.path().join("registry")).expect("a registry");
    let (version, artifact) = publish(&registry, root.path(), 0.2);
    let key = SecretKey::from_seed([7; 32]);
    registry.trust(&key.public(), None).expect("a policy");
    let preload = [Preload::Reference("chest@1".into())];
    let bind = Server::bind(backbone(), Some(Arc::new(registry.clone())), &preload, settings());
    let fault = bind.err().expect("a refusal").to_string();
    assert!(fault.starts_with("`chest@1` is not trusted: the policy asks for 1 signatures"), "{fault}");
    let (_running, client) = serve(&registry, &[]);
    let picture = picture(3);
    assert_eq!(client.classify("chest@1", &picture).fault(), (409, "refused".into()));
    registry.sign(&version, &key).expect("signed");
    agree("signed", &client.classify("chest@1", &picture).ok()["predictions"], &alone(Some(&artifact), &picture, &[]));
}

#[test]
fn a_name_without_a_version_or_a_damaged_one_hides_no_other() {
    let root = tempfile::tempdir().expect("a folder");
    let registry = Registry::open(root.path().join("registry")).expect("a registry");
    publish(&registry, root.path(), 0.2);
    let names = registry.root().join("names");
    // What a publication leaves that was killed before its number was taken, and what a failing disk leaves.
    std::fs::create_dir_all(names.join("begun").join("versions")).expect("a writable folder");
    std::fs::create_dir_all(names.join("damaged").join("versions")).expect("a writable folder");
    std::fs::write(names.join("damaged").join("versions").join("1"), "{").expect("a writable folder");
    let (_running, client) = serve(&registry, &[]);
    let models = client.get("/v1/models").ok();
    let ids: Vec<&str> =
        models["data"].as_array().expect("cards").iter().filter_map(|card| card["id"].as_str()).collect();
    assert_eq!(ids[1..], ["chest"]);
    assert_eq!(client.classify("nothing", &picture(1)).fault(), (404, "unknown_model".into()));
}

#[test]
fn a_version_that_was_collected_is_gone_and_one_in_memory_stays() {
    let root = tempfile::tempdir().expect("a folder");
    let registry = Registry::open(root.path().join("registry")).expect("a registry");
    let (first, one) = publish(&registry, root.path(), 0.2);
    publish(&registry, root.path(), 0.4);
    let (_running, client) = serve(&registry, &[]);
    let picture = picture(2);
    let reference = format!("chest@{}", first.number);
    agree("loaded", &client.classify(&reference, &picture).ok()["predictions"], &alone(Some(&one), &picture, &[]));
    let keep_one = GcPolicy { keep: Some(1), ..GcPolicy::default() };
    registry.gc(&keep_one).expect("a registry");
    assert_eq!(client.classify(&reference, &picture).fault(), (404, "unknown_model".into()));
    assert_eq!(client.classify("chest", &picture).status, 200);
}
