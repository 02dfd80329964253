//! From `tls` of backends to TLS towards their servers.

use super::{Files, Inputs};
use crate::{
    config::{BackendTls, Config, Diagnostic, ServerTls, Spanned},
    io::Stream,
    tls::{Roots, ServerName},
    upstream::{Secure, Secured, Security, Speaks},
};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, sync::Arc};
use tokio::net::TcpStream;

/// Whom to believe, for each thing that is spoken.
struct Believing {
    http1: Roots,
    http2: Roots,
    anything: Roots,
}

impl Secure for Believing {
    fn secure(&self, name: &str, socket: TcpStream, speaks: Speaks) -> Secured {
        let name = name.parse::<ServerName>();
        let roots = match speaks {
            Speaks::Http1 => self.http1.clone(),
            Speaks::Http2 => self.http2.clone(),
            Speaks::Anything => self.anything.clone(),
        };
        Box::pin(async move {
            let stream = roots.agree(name?, socket).await.map_err(|error| error.to_string())?;
            if speaks == Speaks::Http2 && !stream.agreed_on(HTTP2) {
                return Err("it does not speak HTTP/2 over TLS".to_owned());
            }
            Ok(Box::new(stream) as Box<dyn Stream + Send>)
        })
    }
}

const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// TLS towards the servers of each backend that has it, by its name.
pub(super) fn build(
    config: &Config,
    (inputs, files): (&Inputs<'_>, &mut Files),
    problems: &mut Vec<Diagnostic>,
) -> BTreeMap<String, Security> {
    let mut securities = BTreeMap::new();
    for (name, backend) in &config.backends {
        let BackendTls::On(written) = &backend.tls else { continue };
        if let Some(security) = security(written, &backend.name, (inputs, files), problems) {
            securities.insert(name.clone(), security);
        }
    }
    securities
}

fn security(
    written: &ServerTls,
    backend: &Spanned<String>,
    (inputs, files): (&Inputs<'_>, &mut Files),
    problems: &mut Vec<Diagnostic>,
) -> Option<Security> {
    let mut read = |file: &Option<Spanned<String>>| match file {
        None => Some(Vec::new()),
        Some(file) => {
            let path = inputs.base.join(file.get_ref());
            let content = files.read(&path);
            content
                .map_err(|error| {
                    let message = format!("cannot read `{}`: {error}", path.display());
                    problems.push(Diagnostic::error(file.span(), message).label("cannot be used"));
                })
                .ok()
        }
    };
    let (ca, cert, key) = (read(&written.ca), read(&written.cert), read(&written.key));
    let (ca, cert, key) = (ca?, cert?, key?);
    let own = written.cert.is_some().then_some((&*cert, &*key));
    let roots = Roots::showing(&ca, own)
        .map_err(|error| {
            let file = written.ca.as_ref().or(written.cert.as_ref());
            let span = file.map_or_else(|| backend.span(), Spanned::span);
            problems.push(Diagnostic::error(span, error.to_string()).label("cannot be used"));
        })
        .ok()?;
    let mut hash = Sha256::new();
    [&ca, &cert, &key].into_iter().for_each(|content| hash.update(Sha256::digest(content)));
    let how = Believing { http1: roots.offering(&[HTTP1]), http2: roots.offering(&[HTTP2]), anything: roots };
    let name = written.name.as_ref().map(|name| name.get_ref().as_str());
    Some(Security::new(Arc::new(how), name, hash.finalize().into()))
}
