//! What a TLS client asks for, where nobody else reads it: the name of a connection that only passes through
//! (RFC 6066 §3), the protocol that it would like best (RFC 7301).

use rustls::server::{Accepted, Acceptor};

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
    pub fn read(&mut self, came: &[u8]) -> Result<Option<Box<str>>, NoHello> {
        let whole = self.take_in(came)?;
        let name =
            |hello: Accepted| hello.client_hello().server_name().unwrap_or_default().to_ascii_lowercase();
        Ok(whole.map(|whole| name(whole).into()))
    }

    fn take_in(&mut self, mut came: &[u8]) -> Result<Option<Accepted>, NoHello> {
        loop {
            // As much as it takes at a time; what is behind a hello is nobody's here.
            if !came.is_empty() && !matches!(self.0.read_tls(&mut came), Ok(1..)) {
                return Err(NoHello);
            }
            let whole = self.0.accept().map_err(|_| NoHello)?;
            if whole.is_some() || came.is_empty() {
                return Ok(whole);
            }
        }
    }
}

/// The first protocol that a client offers; none where it offers none, or this is no whole `ClientHello`.
pub(super) fn first_protocol(hello: &[u8]) -> Option<Vec<u8>> {
    let whole = Hello::default().take_in(hello).ok()??;
    whole.client_hello().alpn()?.next().map(<[u8]>::to_vec)
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
        long_hello(name, 0)
    }

    /// One that offers so many protocols of 250 bytes each.
    fn long_hello(name: &str, protocols: usize) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = (0..protocols).map(|_| vec![b'x'; 250]).collect();
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
    fn it_may_be_long_and_have_more_behind_it() {
        let long = long_hello("a.test", 90);
        assert!(long.len() > 20_000, "{}", long.len());
        assert_eq!(Hello::default().read(&long), Ok(Some("a.test".into())));
        assert_eq!(first_protocol(&long), Some(vec![b'x'; 250]));
        let followed = [hello("a.test"), vec![23; 40_000]].concat();
        assert_eq!(Hello::default().read(&followed), Ok(Some("a.test".into())));
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
