//! Requests to the admin API of a running instance.

use std::net::SocketAddr;

use serde_json::Value;

use super::client::{self, TestClient, TestResponse};
use super::instance::Gapless;

impl Gapless {
    /// One GET of the admin listener.
    #[track_caller]
    pub(crate) fn admin_get(&self, path: &str) -> TestResponse {
        let mut client = TestClient::open(self.admin);
        let host = self.admin.to_string();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")).expect("sent");
        client.read_response("GET").expect("an answer")
    }

    /// The response to a GET as JSON.
    #[track_caller]
    pub(crate) fn api_json(&self, path: &str) -> Value {
        let answer = self.admin_get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    #[track_caller]
    pub(crate) fn endpoints(&self) -> Vec<Value> {
        take_array(self.api_json("/api/v1/endpoints"), "endpoints")
    }

    /// One endpoint by its address.
    #[track_caller]
    pub(crate) fn endpoint(&self, address: SocketAddr) -> Value {
        let all = self.endpoints();
        let matching = all.into_iter().find(|endpoint| endpoint["address"] == address.to_string());
        matching.unwrap_or_else(|| panic!("no endpoint {address}"))
    }

    /// The `state` of an endpoint.
    #[track_caller]
    pub(crate) fn endpoint_state(&self, address: SocketAddr) -> String {
        self.endpoint(address)["state"].as_str().expect("a word").to_owned()
    }

    #[track_caller]
    pub(crate) fn pool(&self) -> Value {
        take_array(self.api_json("/api/v1/pools"), "pools").swap_remove(0)
    }

    /// Incidents by `scope`: `zones` or `endpoints`.
    #[track_caller]
    pub(crate) fn incidents(&self, scope: &str) -> Vec<Value> {
        take_array(self.api_json("/api/v1/incidents"), scope)
    }

    /// The number of configurations applied so far.
    #[track_caller]
    pub(crate) fn generation(&self) -> u64 {
        self.api_json("/api/v1/config")["generation"].as_u64().expect("a number")
    }

    /// One sample of `/metrics`, by its name with labels.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.admin_get("/metrics").text();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().expect("a number")
    }

    /// One GET through the proxy, on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> TestResponse {
        client::get(self.address, target)
    }
}

fn take_array(mut value: Value, key: &str) -> Vec<Value> {
    match value[key].take() {
        Value::Array(all) => all,
        other => panic!("{key} is {other}"),
    }
}
