//! Who may use the API: whoever has one of the bearer tokens (RFC 6750 §2.1).

use std::sync::Arc;

use axum::extract::{Request, State as Given};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::{Choice, ConstantTimeEq};

use super::State;
use super::problem::Problem;
use crate::settings::Secret;

/// Lets a request with a good token pass and answers every other 401, whatever it asks for.
pub(super) async fn require_token(Given(state): Given<Arc<State>>, request: Request, next: Next) -> Response {
    let presented = bearer(request.headers());
    if presented.is_some_and(|token| is_known(token, &state.reloader.tokens())) {
        return next.run(request).await;
    }
    let detail = match presented {
        Some(_) => "the bearer token is not one of http.tokens",
        None => "a bearer token is required: Authorization: Bearer TOKEN",
    };
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
    let challenge = HeaderValue::from_static("Bearer realm=\"tandem\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares with every token, so that the time tells neither how much of one was right nor which.
fn is_known(presented: &str, tokens: &[Secret]) -> bool {
    tokens
        .iter()
        .filter(|token| !token.reveal().is_empty())
        .fold(Choice::from(0), |known, token| known | token.reveal().as_bytes().ct_eq(presented.as_bytes()))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_tokens_suffices_and_a_part_of_one_does_not() {
        let tokens = [Secret::from("first".to_owned()), Secret::from("second".to_owned())];
        assert!(is_known("first", &tokens));
        assert!(is_known("second", &tokens));
        for wrong in ["", "firs", "firsts", "third"] {
            assert!(!is_known(wrong, &tokens), "{wrong}");
        }
    }

    #[test]
    fn an_empty_token_opens_nothing() {
        assert!(!is_known("", &[Secret::from(String::new())]));
        assert!(!is_known("", &[]));
    }
}
