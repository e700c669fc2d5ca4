//! A client of one server.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ureq::Agent;

/// Sends requests to one server.
#[derive(Clone)]
pub(super) struct Client {
    agent: Agent,
    address: SocketAddr,
    token: Option<String>,
}

/// A status and what came with it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: ureq::http::HeaderMap,
    pub(super) text: String,
}

impl Reply {
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The code of a fault, which must come with a message.
    #[track_caller]
    pub(super) fn fault(&self) -> (u16, String) {
        let error = &self.json()["error"];
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{}", self.text);
        (self.status, error["code"].as_str().expect("a code").to_string())
    }

    #[track_caller]
    pub(super) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60)));
        Self { agent: config.build().into(), address, token: None }
    }

    pub(super) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn read(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Reply {
        let mut response = response.expect("a server that answers");
        let text = response.body_mut().read_to_string().expect("a text");
        Reply { status: response.status().as_u16(), headers: response.headers().clone(), text }
    }

    pub(super) fn get(&self, path: &str) -> Reply {
        let mut request = self.agent.get(self.url(path));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        Self::read(request.call())
    }

    pub(super) fn bytes(&self, path: &str) -> Vec<u8> {
        let mut response = self.agent.get(self.url(path)).call().expect("a server that answers");
        assert_eq!(response.status().as_u16(), 200);
        response.body_mut().read_to_vec().expect("bytes")
    }

    pub(super) fn delete(&self, path: &str) -> Reply {
        Self::read(self.agent.delete(self.url(path)).call())
    }

    pub(super) fn put(&self, path: &str, body: &Value) -> Reply {
        let request = self.agent.put(self.url(path)).header("content-type", "application/json");
        Self::read(request.send(body.to_string()))
    }

    pub(super) fn send(&self, path: &str, kind: &str, body: &[u8]) -> Reply {
        self.send_with(path, &[("content-type", kind)], body)
    }

    pub(super) fn send_with(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut request = self.agent.post(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        Self::read(request.send(body))
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(path, "application/json", body.to_string().as_bytes())
    }

    pub(super) fn classify(&self, model: &str, image: &[u8]) -> Reply {
        self.post("/v1/classify", &json!({ "model": model, "image": encoded(image), "top_k": 100 }))
    }
}

/// Bytes as base64.
pub(super) fn encoded(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
