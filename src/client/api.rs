//! The HTTP side of the commands: one request, one JSON answer.

use std::time::Duration;

use serde_json::Value;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::ClientError;

/// How long an answer is waited for: longer than the daemon lets a request take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 256 * 1024 * 1024;

/// A daemon's API. Blocking; without TLS, since the API is plain HTTP.
pub struct Api {
    agent: Agent,
    url: String,
    authorization: String,
}

impl Api {
    /// The API at `url` (`http://host:port`), used with `token`.
    pub fn new(url: &str, token: &str) -> Api {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .max_redirects(0)
            // A token must not go to whatever proxy the environment names.
            .proxy(None)
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
            .build();
        let url = url.trim_end_matches('/').to_owned();
        Api { agent: config.into(), url, authorization: format!("Bearer {token}") }
    }

    /// GET.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Refused`], [`ClientError::NotTandem`].
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        let request = self.agent.get(self.at(path)).header("Authorization", &self.authorization);
        self.answer(request.call())
    }

    /// DELETE.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&self, path: &str) -> Result<Value, ClientError> {
        let request = self.agent.delete(self.at(path)).header("Authorization", &self.authorization);
        self.answer(request.call())
    }

    /// POST of JSON.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let request = self.agent.post(self.at(path)).header("Authorization", &self.authorization);
        self.answer(request.content_type("application/json").send(body.to_string()))
    }

    /// POST of text.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn post_text(&self, path: &str, body: &str) -> Result<Value, ClientError> {
        let request = self.agent.post(self.at(path)).header("Authorization", &self.authorization);
        self.answer(request.content_type("text/plain; charset=utf-8").send(body))
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn answer(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Value, ClientError> {
        let unreachable =
            |why: ureq::Error| ClientError::Unreachable { url: self.url.clone(), why: why.to_string() };
        let mut response = answer.map_err(unreachable)?;
        let status = response.status();
        let text =
            response.body_mut().with_config().limit(MAX_ANSWER).read_to_string().map_err(unreachable)?;
        let json: Result<Value, _> = serde_json::from_str(&text);
        if status.is_success() {
            return json.map_err(|why| self.not_tandem(why.to_string()));
        }
        match json.ok().and_then(|problem| problem["detail"].as_str().map(str::to_owned)) {
            Some(detail) => Err(ClientError::Refused { status: status.as_u16(), detail }),
            None => Err(self.not_tandem(told(status))),
        }
    }

    fn not_tandem(&self, why: String) -> ClientError {
        ClientError::NotTandem { url: self.url.clone(), why }
    }
}

fn told(status: StatusCode) -> String {
    format!("HTTP {status} without a problem document")
}

/// What a person typed, as one segment of a path (RFC 3986 §3.3).
pub(super) fn segment(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_cannot_leave_its_segment() {
        assert_eq!(segment("c0012ab"), "c0012ab");
        assert_eq!(segment("../drain?x=1#é"), "..%2Fdrain%3Fx%3D1%23%C3%A9");
    }
}
