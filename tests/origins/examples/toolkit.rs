//! An application as people write it with a toolkit that knows nothing of this gateway: `wstd`.

use wstd::http::{Body, Error, Method, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/echo") => Ok(Response::new(request.into_body())),
        (&Method::GET, path) if path.starts_with("/greet/") => {
            let name = path.trim_start_matches("/greet/");
            let answer = Response::builder().header("content-type", "text/plain");
            Ok(answer.body(format!("hello, {name}\n").into())?)
        }
        _ => {
            Ok(Response::builder().status(StatusCode::NOT_FOUND).body("nothing here\n".to_owned().into())?)
        }
    }
}
