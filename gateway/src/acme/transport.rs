//! Requests to an authority: who carries them is somebody else.

use bytes::Bytes;
use http::{Method, Request, Response, Uri, header::RETRY_AFTER};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use serde::Deserialize;
use std::{pin::Pin, sync::Arc};

/// How long an authority may ask for patience, in seconds. An order has far less.
const LONGEST_RETRY: u64 = 24 * 3600;

/// What becomes of a request: its answer, or in words why there is none.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response<Bytes>, String>> + Send>>;

/// Sends requests. Each has a deadline and its answer a limit.
pub trait Transport: Send + Sync + 'static {
    /// Sends one.
    fn send(&self, request: Request<Bytes>) -> Answering;
}

/// As the library wants it.
pub(super) struct Carried(pub(super) Arc<dyn Transport>);

impl HttpClient for Carried {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let transport = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            // A body that is in memory cannot fail.
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            // Only the directory is asked for so: all else is signed, or has no body.
            let is_directory = head.method == Method::GET;
            let answer = transport.send(Request::from_parts(head, body)).await;
            let answer = answer.and_then(|answer| sound(answer, is_directory));
            answer
                .map(|answer| BytesResponse::from(answer.map(Full::new)))
                .map_err(|error| Error::Other(error.into()))
        })
    }
}

/// The part of a directory (RFC 8555 §7.1.1) that the library believes without a look.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
}

/// An answer that the library can be given: it panics where a directory's addresses are none, and where
/// it is to wait for ages.
fn sound(mut answer: Response<Bytes>, is_directory: bool) -> Result<Response<Bytes>, String> {
    if is_directory {
        if !answer.status().is_success() {
            return Err(format!("the directory is answered with {}", answer.status()));
        }
        let directory: Directory = serde_json::from_slice(answer.body())
            .map_err(|error| format!("what is there is no directory of ACME: {error}"))?;
        if directory.new_nonce.parse::<Uri>().is_err() {
            return Err("the directory's `newNonce` is no address".to_owned());
        }
    }
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = retry_after.and_then(|text| text.trim().parse::<u64>().ok());
    if seconds.is_some_and(|seconds| seconds > LONGEST_RETRY) {
        answer.headers_mut().remove(RETRY_AFTER);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Response<Bytes> {
        Response::builder().status(status).body(Bytes::from(body)).expect("an answer")
    }

    #[test]
    fn a_directory_is_one_before_it_is_used() {
        let words = |status, body| sound(answer(status, body), true).expect_err(body);
        assert!(words(503, "busy").contains("503"));
        assert!(words(200, "<html>").contains("no directory"));
        assert!(words(200, "{}").contains("newNonce"));
        assert!(words(200, r#"{"newNonce": "no address"}"#).contains("no address"));
        let good = r#"{"newNonce": "https://ca.test/nonce", "newAccount": "https://ca.test/account"}"#;
        assert!(sound(answer(200, good), true).is_ok());
        assert!(sound(answer(400, "anything"), false).is_ok(), "the library reads problems itself");
    }

    #[test]
    fn nobody_is_told_to_wait_for_ages() {
        for (written, kept) in [("5", true), ("86400", true), ("18446744073709551615", false)] {
            let mut answer = answer(200, "");
            answer.headers_mut().insert(RETRY_AFTER, written.parse().expect("a value"));
            let headers = sound(answer, false).expect("an answer").headers().clone();
            assert_eq!(headers.contains_key(RETRY_AFTER), kept, "{written}");
        }
    }
}
