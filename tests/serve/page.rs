//! The page and the description of the routes.

use super::world::{serve, settings};

#[test]
fn the_page_asks_nobody_else() {
    let (_running, client) = serve(&[], settings());
    for (path, kind) in [("/", "text/html"), ("/style.css", "text/css"), ("/app.js", "text/javascript")] {
        let reply = client.get(path);
        assert_eq!(reply.status, 200);
        assert!(reply.headers["content-type"].to_str().expect("a header").starts_with(kind), "{path}");
        let policy = reply.headers["content-security-policy"].to_str().expect("a policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!reply.text.contains("://"), "{path} names another place");
    }
}

#[test]
fn every_route_is_described() {
    let (_running, client) = serve(&[], settings());
    let description = client.get("/openapi.json").ok();
    assert!(description["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    let paths = description["paths"].as_object().expect("paths");
    for path in [
        "/v1/classify",
        "/v1/embeddings",
        "/v1/similarity",
        "/v1/relevance",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/models/{model}/words",
        "/v1/adapters",
        "/v1/adapters/{name}",
        "/v1/adapters/{name}/aliases/{alias}",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/v1/streams",
        "/v1/streams/{id}",
        "/health",
        "/ready",
        "/metrics",
    ] {
        assert!(paths.contains_key(path), "{path} is missing in {:?}", paths.keys());
    }
    let schema = &description["components"]["schemas"]["ClassifyRequest"]["properties"];
    assert!(schema["image"].is_object() && schema["top_k"].is_object(), "{schema}");
    let id = client.get("/health").headers["x-request-id"].clone();
    assert!(!id.is_empty());
}
