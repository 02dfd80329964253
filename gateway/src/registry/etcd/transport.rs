//! Requests to etcd: who carries them is somebody else.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use std::{fmt, pin::Pin, sync::Arc};

/// What becomes of a request: an answer whose body comes piece by piece.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response<Pieces>, Undelivered>> + Send>>;

/// A body. It ends with words where it breaks off.
pub type Pieces = UnsyncBoxBody<Bytes, String>;

/// Sends requests. A connection has to stand within a second or two, and is given up where the other side does not
/// acknowledge anything for some; whole answers have their deadlines from who asks.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends one.
    fn send(&self, request: Request<Bytes>) -> Answering;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// In words.
    pub why: String,
    /// Whether it is certain that nobody has read the request.
    pub is_unsent: bool,
}

/// Where etcd is, and who we are there.
#[derive(Debug, Clone)]
pub struct Access {
    /// Its members: `https://host:2379`. Not empty.
    pub endpoints: Arc<[String]>,
    /// Who we are there, where it asks.
    pub user: Option<User>,
    /// Who carries requests there.
    pub transport: Arc<dyn Transport>,
}

/// A user of etcd.
#[derive(Clone)]
pub struct User {
    /// As etcd knows it.
    pub name: String,
    /// Its password; none where the secret has no value.
    pub password: Option<Arc<str>>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).field("password", &"***").finish()
    }
}
