//! The name that a TLS client asks for, where its connection only passes through (RFC 6066 §3).

use rustls::server::Acceptor;

/// Reads the beginning of a connection that somebody else will answer.
#[derive(Default)]
pub struct Hello(Acceptor);

/// What came is no `ClientHello` that anybody could answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no ClientHello")]
pub struct NoHello;

impl Hello {
    /// Reads on. The name is in lower case, and empty where the client asks for none; there is no answer
    /// while more must come.
    ///
    /// # Errors
    /// Fails where what came is no `ClientHello`. There is nothing to read on then.
    pub fn read(&mut self, mut came: &[u8]) -> Result<Option<Box<str>>, NoHello> {
        while !came.is_empty() {
            match self.0.read_tls(&mut came) {
                Ok(1..) => {}
                _ => return Err(NoHello),
            }
        }
        let accepted = self.0.accept().map_err(|_| NoHello)?;
        Ok(accepted.map(|accepted| {
            accepted.client_hello().server_name().unwrap_or_default().to_ascii_lowercase().into()
        }))
    }
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::provider;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use std::sync::Arc;

    fn hello(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = name.to_owned().try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("a hello");
        bytes
    }

    #[test]
    fn the_name_is_read_as_it_comes() {
        let bytes = hello("A.example.com");
        for size in [1, 7, 100, bytes.len()] {
            let mut reader = Hello::default();
            let mut parts = bytes.chunks(size).map(|part| reader.read(part)).collect::<Vec<_>>();
            let last = parts.pop().expect("a part");
            assert_eq!(last.expect("a hello").as_deref(), Some("a.example.com"));
            assert!(parts.iter().all(|early| *early == Ok(None)), "by {size}");
        }
    }

    #[test]
    fn without_a_name_and_without_tls() {
        assert_eq!(Hello::default().read(&hello("127.0.0.1")), Ok(Some("".into())), "an address is no name");
        assert_eq!(Hello::default().read(b"GET / HTTP/1.1\r\n\r\n"), Err(NoHello));
        assert_eq!(Hello::default().read(&[22, 3, 1, 0, 4, 2, 0, 0, 0]), Err(NoHello), "a ServerHello");
        let endless = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 0x4000]].concat();
        let mut reader = Hello::default();
        let mut reading = (0..100).map(|_| reader.read(&endless));
        assert!(reading.any(|read| read == Err(NoHello)), "it does not grow for ever");
    }
}
