//! Who may do what.

use inarch_serve::{Server, Settings, Tls};
use serde_json::json;

use super::client::encoded;
use super::world::{backbone, picture, saved, serve, settings};
use crate::contract::case::configured;

const TOKENS: &str = r#"
[[token]]
name = "dashboard"
token = "predict-predict-predict"
scopes = ["predict"]

[[token]]
name = "operator"
token = "admin-admin-admin-admin"
scopes = ["predict", "admin", "metrics"]
"#;

#[test]
fn a_token_allows_what_its_scopes_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.toml");
    std::fs::write(&file, TOKENS).expect("a writable folder");
    let (_running, nobody) = serve(&[], Settings { tokens: Some(file), ..settings() });
    let [reader, operator] =
        ["predict-predict-predict", "admin-admin-admin-admin"].map(|token| nobody.with_token(token));
    let ask = json!({ "classes": ["cat", "dog"], "image": encoded(&picture(1)) });
    let load = json!({ "name": "a", "path": "a" });

    let refused = nobody.post("/v1/classify", &ask);
    assert_eq!(refused.fault(), (401, "unauthorized".into()));
    assert_eq!(refused.headers["www-authenticate"], "Bearer");
    assert_eq!(nobody.with_token("predict-predict-predicT").post("/v1/classify", &ask).status, 401);
    assert_eq!(nobody.get("/v1/models").status, 401);
    assert_eq!(nobody.get("/metrics").status, 401);
    assert_eq!((nobody.get("/health").status, nobody.get("/").status), (200, 200));

    assert_eq!(reader.post("/v1/classify", &ask).status, 200);
    assert_eq!(reader.post("/v1/adapters", &load).fault(), (403, "forbidden".into()));
    assert_eq!(reader.get("/metrics").status, 403);
    assert_eq!(operator.get("/metrics").status, 200);
    assert_eq!(operator.post("/v1/adapters", &load).fault(), (403, "path_not_allowed".into()));
}

#[test]
fn a_token_for_some_models_knows_of_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokens.toml");
    let text = r#"
[[token]]
name = "shop a"
token = "shop-a-shop-a-shop-a"
scopes = ["predict"]
models = ["lora", "shop-a-*"]
"#;
    std::fs::write(&file, text).expect("a writable folder");
    let folders = ["lora", "linear-probe"].map(|method| saved(folder.path(), method, &configured(method, "")));
    let (_running, nobody) = serve(&folders, Settings { tokens: Some(file), ..settings() });
    let tenant = nobody.with_token("shop-a-shop-a-shop-a");
    let image = encoded(&picture(1));
    let of = |model: &str| json!({ "model": model, "image": image });
    assert_eq!(tenant.post("/v1/classify", &of("lora")).status, 200);
    let missing = tenant.post("/v1/classify", &of("lora@1"));
    assert_eq!(missing.fault().0, 404, "a version of its own that is not there");
    let routes = ["/v1/models/lora@1", "/v1/models/lora@1/words"].map(|route| tenant.get(route));
    for reply in routes.iter().chain([&missing]) {
        assert_eq!(reply.json()["error"]["hint"], "known: lora", "others are not among the suggestions");
    }
    assert_eq!(tenant.post("/v1/classify", &of("shop-a-new")).fault().0, 404);
    // Nobody learns whether others' models exist.
    for model in ["linear-probe", "nothing", "lora-of-others"] {
        for route in ["/v1/classify", "/v1/relevance"] {
            let fault = tenant.post(route, &of(model)).fault();
            assert_eq!(fault, (403, "forbidden".into()), "{route} {model}");
        }
        assert_eq!(tenant.get(&format!("/v1/models/{model}")).fault().0, 403);
        assert_eq!(tenant.get(&format!("/v1/models/{model}/words")).fault().0, 403);
        let texts = json!({ "model": model, "images": [image], "texts": ["a cat"] });
        assert_eq!(tenant.post("/v1/similarity", &texts).fault().0, 403);
        assert_eq!(tenant.post("/v1/embeddings", &json!({ "model": model, "input": "cat" })).fault().0, 403);
    }
    // The backbone is a model as well.
    assert_eq!(tenant.post("/v1/classify", &json!({ "classes": ["cat"], "image": image })).fault().0, 403);
    let models = tenant.get("/v1/models").ok();
    let names: Vec<&str> =
        models["data"].as_array().expect("cards").iter().filter_map(|card| card["id"].as_str()).collect();
    assert_eq!(names, ["lora"]);
}

#[test]
fn files_that_cannot_be_used_stop_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let bind = |settings: Settings| Server::bind(backbone(), None, &[], settings).err().expect("a fault").to_string();
    for (text, words) in [
        ("", "token"),
        ("token = 7", "token"),
        ("[[token]]\nname = \"a\"\ntoken = \"short\"\nscopes = [\"predict\"]", "fewer than 16"),
        ("[[token]]\nname = \"a\"\ntoken = \"long-enough-for-all\"\nscopes = [\"root\"]", "root"),
        (
            "[[token]]\nname = \"a\"\ntoken = \"long-enough-for-all\"\nscopes = [\"admin\"]\nmodels = [\"b\"]",
            "for all models",
        ),
    ] {
        let file = folder.path().join("tokens.toml");
        std::fs::write(&file, text).expect("a writable folder");
        let error = bind(Settings { tokens: Some(file), ..settings() });
        assert!(error.contains("tokens.toml") && error.contains(words), "{error}");
    }
    let [certificate, key] = ["a.pem", "b.pem"].map(|name| folder.path().join(name));
    std::fs::write(&certificate, "no certificate").expect("a writable folder");
    let error = bind(Settings { tls: Some(Tls { certificate, key }), ..settings() });
    assert!(error.contains("a.pem"), "{error}");
    let (running, _) = serve(&[], settings());
    let error = bind(Settings { address: running.address(), ..settings() });
    assert!(error.contains("cannot listen on"), "{error}");
}

#[test]
fn other_pages_may_not_call_unless_they_are_named() {
    let ask = |cors: Vec<String>| {
        let (_running, client) = serve(&[], Settings { cors, ..settings() });
        let headers = [("content-type", "application/json"), ("origin", "https://example.invalid")];
        let reply = client.send_with("/v1/embeddings", &headers, br#"{"input": "cat"}"#);
        reply.headers.get("access-control-allow-origin").map(|origin| origin.to_str().expect("a header").to_string())
    };
    assert_eq!(ask(Vec::new()), None);
    assert_eq!(ask(vec!["https://example.invalid".into()]), Some("https://example.invalid".into()));
    assert_eq!(ask(vec!["https://other.invalid".into()]), None);
}
