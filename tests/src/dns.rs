//! A name server that says what the test says.

use std::{
    collections::HashMap,
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::net::UdpSocket;

/// A name server over UDP, on `[::1]` unless it is told otherwise. It ends when it is dropped.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<String, (Vec<Ipv6Addr>, u32)>,
    asked: Vec<String>,
    says: Says,
}

/// What it says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Says {
    /// What it knows.
    #[default]
    WhatItKnows,
    /// What it knows, and nothing about any other name.
    OnlyWhatItKnows,
    /// That it failed.
    Failure,
    /// Nothing.
    Nothing,
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NameServer {
    /// Knows nothing yet.
    ///
    /// # Panics
    /// Panics where there is no free port.
    pub async fn start() -> Self {
        Self::at("[::1]:0").await
    }

    /// The same, at this address.
    ///
    /// # Panics
    /// Panics where that cannot be had.
    pub async fn at(address: &str) -> Self {
        let socket = UdpSocket::bind(address).await.expect("a free port");
        let address = socket.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let of_task = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut question).await {
                let answer = lock(&of_task).answer(&question[..length]);
                if let Some(answer) = answer {
                    // Who asked may have gone.
                    let _ = socket.send_to(&answer, peer).await;
                }
            }
        });
        Self { address, state, task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// A name has these addresses from now on, for so many seconds.
    pub fn knows(&self, name: &str, addresses: &[&str], ttl: u32) {
        let addresses = addresses.iter().map(|text| text.parse().expect("an IPv6 address")).collect();
        lock(&self.state).names.insert(name.to_owned(), (addresses, ttl));
    }

    /// A name has no address any more.
    pub fn forgets(&self, name: &str) {
        lock(&self.state).names.remove(name);
    }

    /// What it says from now on.
    pub fn says(&self, says: Says) {
        lock(&self.state).says = says;
    }

    /// The names that it was asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state).asked.clone()
    }
}

impl State {
    /// RFC 1035 §4.1, as much of it as one question needs.
    fn answer(&mut self, question: &[u8]) -> Option<Vec<u8>> {
        let (name, end) = name(question.get(12..)?)?;
        let asked = question.get(12..12 + end + 4)?;
        self.asked.push(name.clone());
        let known = self.names.get(&name);
        let code = match (self.says, known) {
            (Says::Nothing, _) | (Says::OnlyWhatItKnows, None) => return None,
            (Says::Failure, _) => 2,
            (Says::WhatItKnows | Says::OnlyWhatItKnows, Some(_)) => 0,
            (Says::WhatItKnows, None) => 3,
        };
        let is_aaaa = asked[end..end + 2] == [0, 28];
        let (addresses, ttl) = known.filter(|_| code == 0 && is_aaaa).cloned().unwrap_or_default();
        let count = u8::try_from(addresses.len()).expect("few");
        let mut answer = question[..2].to_vec();
        answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        answer.extend_from_slice(asked);
        for address in addresses {
            answer.extend([0xc0, 12, 0, 28, 0, 1]);
            answer.extend(ttl.to_be_bytes());
            answer.extend([0, 16]);
            answer.extend(address.octets());
        }
        Some(answer)
    }
}

/// A name in lower case, without its last dot, and how many bytes it takes.
fn name(bytes: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(bytes.get(at..at + length)?).to_lowercase());
        at += length;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
