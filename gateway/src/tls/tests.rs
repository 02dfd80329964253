//! Whatever comes, it ends a connection and nothing else.

use super::{Authority, Carries, Certificates, Entry, ServerStream, Terminator, Tickets};
use crate::io::Buffers;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use std::{
    io::{Read as _, Write as _},
    rc::Rc,
    sync::Arc,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
};

/// A terminator, and a client that trusts it.
fn pair() -> (Rc<Terminator>, Arc<ClientConfig>) {
    let authority = Authority::generate().expect("an authority");
    let names = vec![Box::from("app.test")];
    let certificate = Arc::new(authority.issue(&names).expect("a certificate"));
    let certificates = Arc::new(Certificates::new([Entry { certificate, names, is_default: true }]));
    let tickets = Tickets::new().expect("keys");
    let terminator = Terminator::new(certificates, &tickets, None).expect("TLS");
    let mut roots = RootCertStore::empty();
    let der = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).expect("a certificate");
    roots.add(der).expect("an authority");
    let client = ClientConfig::builder_with_provider(Arc::clone(super::provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Rc::new(terminator), Arc::new(client))
}

/// Serves one connection: everything comes back.
async fn echo(terminator: Rc<Terminator>, socket: TcpStream) {
    let Ok(stream) = terminator.accept(socket, Carries::Bytes, Rc::new(Buffers::default())).await else {
        return;
    };
    let mut stream: ServerStream = stream;
    let mut buffer = vec![0; 3000];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
    // A client that is gone needs no farewell.
    let _ = stream.shutdown().await;
}

/// A random number from a number: tests that fail must fail again.
fn scramble(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

/// Passes bytes on in small pieces, and after so many of them changes one.
async fn spoil(mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, seed: u64) {
    let mut left = (scramble(seed) % 4000) as usize;
    let mut buffer = [0; 700];
    let mut step = seed;
    loop {
        step = scramble(step);
        let size = 1 + (step % 699) as usize;
        let Ok(read @ 1..) = from.read(&mut buffer[..size]).await else { return };
        if left < read {
            buffer[left] ^= 1 + (step >> 32) as u8 % 255;
            left = usize::MAX;
        }
        left = left.saturating_sub(read);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// A client that talks to the echo through somebody who changes one byte of what it sends.
async fn talk(client: Arc<ClientConfig>, socket: TcpStream) -> bool {
    let name = ServerName::try_from("app.test").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(client);
    let Ok(mut stream) = connector.connect(name, socket).await else { return false };
    let said: Vec<u8> = (0..40_000).map(|at| (at % 251) as u8).collect();
    let mut heard = vec![0; 1000];
    for piece in said.chunks(1000) {
        if stream.write_all(piece).await.is_err() || stream.read_exact(&mut heard).await.is_err() {
            return false;
        }
        assert_eq!(heard, piece, "what is not refused is what was sent");
    }
    stream.shutdown().await.is_ok()
}

async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (near, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.expect("a connection"), accepted.expect("a connection").0)
}

/// Lets a client talk through the spoiler; whether that went well.
async fn round(terminator: &Rc<Terminator>, client: &Arc<ClientConfig>, seed: u64) -> bool {
    let ((near, between), (through, far)) = (connected().await, connected().await);
    let serving = spawn_local(echo(Rc::clone(terminator), far));
    let ((read, write_back), (mut read_back, write)) = (between.into_split(), through.into_split());
    let there = spawn_local(spoil(read, write, seed));
    let back = spawn_local(async move {
        let mut write_back = write_back;
        // Either end may be gone.
        let _ = tokio::io::copy(&mut read_back, &mut write_back).await;
    });
    let talking = spawn_local(talk(Arc::clone(client), near));
    let talked = talking.await.expect("no panic of the client");
    serving.await.expect("no panic of the gateway");
    there.await.expect("no panic between them");
    back.await.expect("no panic between them");
    talked
}

#[tokio::test]
async fn one_wrong_byte_anywhere_ends_the_connection_and_never_more() {
    let rounds = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(40);
    let (terminator, client) = pair();
    let fresh = pair().1;
    LocalSet::new()
        .run_until(async {
            let mut refused = 0;
            for seed in 0..rounds {
                refused += u64::from(!round(&terminator, &client, seed).await);
                // One that does not trust the certificate says so, which is another way to end.
                assert!(!round(&terminator, &fresh, seed).await);
            }
            assert!(refused > rounds / 2, "{refused} of {rounds}: nobody changes anything");
        })
        .await;
}

/// Reads until the client knows who serves it; what it says next waits in it.
async fn shake_hands(client: Arc<ClientConfig>, socket: &mut TcpStream) -> ClientConnection {
    let name = ServerName::try_from("app.test").expect("a name");
    let mut client = ClientConnection::new(client, name).expect("a client");
    loop {
        let mut hello = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut hello).expect("memory");
        }
        socket.write_all(&hello).await.expect("it is taken");
        let mut came = [0; 4096];
        let read = socket.read(&mut came).await.expect("an answer");
        let mut came = came.get(..read).unwrap_or_default();
        while !came.is_empty() {
            client.read_tls(&mut came).expect("memory");
            client.process_new_packets().expect("a server that it trusts");
        }
        if !client.is_handshaking() {
            return client;
        }
    }
}

#[tokio::test]
async fn who_says_everything_with_the_last_word_of_the_handshake_is_heard() {
    let (terminator, config) = pair();
    LocalSet::new()
        .run_until(async {
            let (mut near, far) = connected().await;
            let serving = spawn_local(echo(Rc::clone(&terminator), far));
            let mut client = shake_hands(Arc::clone(&config), &mut near).await;
            client.writer().write_all(b"all of it").expect("memory");
            client.send_close_notify();
            let mut said = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut said).expect("memory");
            }
            near.write_all(&said).await.expect("it is taken");
            near.shutdown().await.expect("an end");
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.expect("an answer");
            let (mut answer, mut heard) = (answer.as_slice(), Vec::new());
            while !answer.is_empty() {
                client.read_tls(&mut answer).expect("memory");
                client.process_new_packets().expect("what a server says");
            }
            client.reader().read_to_end(&mut heard).expect("an orderly end");
            assert_eq!(heard, b"all of it");
            serving.await.expect("no panic of the gateway");
        })
        .await;
}

#[tokio::test]
async fn noise_is_refused() {
    let (terminator, _) = pair();
    LocalSet::new()
        .run_until(async {
            for seed in 1..200_u64 {
                let (mut near, far) = connected().await;
                let serving = spawn_local(echo(Rc::clone(&terminator), far));
                let mut bytes = seed.to_le_bytes().to_vec();
                let mut step = seed;
                while (bytes.len() as u64) < 10 + seed * 300 {
                    step = scramble(step);
                    bytes.extend_from_slice(&step.to_le_bytes());
                }
                // Something that a handshake could begin with, records of any length and type.
                let length = (bytes.len() as u64 % 16_384) as u16;
                let begin = [22, 3, (seed % 5) as u8, (length >> 8) as u8, length as u8, (seed % 3) as u8, 0];
                let begin = begin.get(..usize::from(seed % 8 != 0) * 7).expect("a part");
                // It may be refused before all of it is sent.
                let _ = near.write_all(begin).await;
                let _ = near.write_all(&bytes).await;
                let _ = near.shutdown().await;
                serving.await.expect("no panic");
            }
        })
        .await;
}
