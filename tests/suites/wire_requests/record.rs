//! A backend that answers what it understands, and remembers every byte.

use gateway_tests::{
    Backend,
    wire::{Connection, Framing, Message, Parsed, latin, request},
};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A backend that answers every whole request with `200` and `ok`, and remembers every byte.
#[derive(Debug)]
pub(super) struct Recorder {
    backend: Backend,
    record: Arc<Mutex<Record>>,
}

/// All that came, on all connections.
#[derive(Debug, Default, Clone)]
pub(super) struct Record {
    /// Whole requests, in the order in which they were heard.
    pub(super) heard: Vec<Heard>,
    /// What each connection carried after its last whole request, or what it carried that is none.
    pub(super) rests: Vec<Rest>,
}

/// A whole request.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) message: Message,
    pub(super) bytes: Vec<u8>,
    /// The cases that it is of: one, unless cases got mixed up.
    pub(super) marks: BTreeSet<String>,
    /// Whether bytes came behind it before it was answered.
    pub(super) crowded: bool,
}

/// Bytes that are no whole request.
#[derive(Debug, Default, Clone)]
pub(super) struct Rest {
    pub(super) bytes: Vec<u8>,
    /// As in [`Heard`]; known in what [`Recorder::record`] returns.
    pub(super) marks: BTreeSet<String>,
    /// Whether the connection has ended.
    pub(super) ended: bool,
}

impl Recorder {
    pub(super) async fn start() -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let kept = Arc::clone(&record);
        let backend = Backend::tcp(move |stream| {
            let record = Arc::clone(&kept);
            serve(Connection::over(stream), record)
        })
        .await;
        Self { backend, record }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.backend.addr()
    }

    pub(super) fn record(&self) -> Record {
        let mut record = self.lock().clone();
        record.rests.iter_mut().for_each(|rest| rest.marks = marks(&rest.bytes));
        record
    }

    /// Whether anything came with this mark.
    pub(super) fn knows(&self, mark: &str) -> bool {
        let record = self.lock();
        record.heard.iter().any(|heard| heard.marks.contains(mark))
            || record.rests.iter().any(|rest| marks(&rest.bytes).contains(mark))
    }

    /// How many bytes came, and how many connections have ended.
    pub(super) fn state(&self) -> (usize, usize) {
        let record = self.lock();
        (record.bytes(), record.rests.iter().filter(|rest| rest.ended).count())
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    /// How many bytes came.
    pub(super) fn bytes(&self) -> usize {
        let (heard, rests) = (self.heard.iter(), self.rests.iter());
        heard.map(|heard| heard.bytes.len()).chain(rests.map(|rest| rest.bytes.len())).sum()
    }

    /// What of it is of the case with this mark.
    pub(super) fn of(&self, mark: &str) -> Self {
        Self {
            heard: self.heard.iter().filter(|heard| heard.marks.contains(mark)).cloned().collect(),
            rests: self.rests.iter().filter(|rest| rest.marks.contains(mark)).cloned().collect(),
        }
    }
}

/// The mark of the case with this number: four characters that are nowhere else in its bytes.
pub(super) fn mark(case: usize) -> String {
    format!("q{case:03}")
}

/// The marks of cases in these bytes.
pub(super) fn marks(bytes: &[u8]) -> BTreeSet<String> {
    let is_mark = |window: &&[u8]| window[0] == b'q' && window[1..].iter().all(u8::is_ascii_digit);
    bytes.windows(4).filter(is_mark).map(latin).collect()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const OK_TO_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

async fn serve(mut connection: Connection, record: Arc<Mutex<Record>>) {
    let locked = || record.lock().unwrap_or_else(PoisonError::into_inner);
    let index = {
        let mut record = locked();
        record.rests.push(Rest::default());
        record.rests.len() - 1
    };
    let mut continued = false;
    while connection.end.is_none() {
        connection.more().await;
        loop {
            let reply = match request(&connection.came) {
                Parsed::Whole(message, used) => {
                    let bytes: Vec<u8> = connection.came.drain(..used).collect();
                    let crowded = !connection.came.is_empty();
                    if !continued && expects(&message) {
                        connection.send(CONTINUE).await;
                    }
                    continued = false;
                    let reply = if message.parts()[0] == "HEAD" { OK_TO_HEAD } else { OK };
                    let marks = marks(&bytes);
                    locked().heard.push(Heard { message, bytes, marks, crowded });
                    reply
                }
                Parsed::Unfinished(Some(head)) if !continued && expects(&head) => {
                    continued = true;
                    CONTINUE
                }
                Parsed::Unfinished(_) => break,
                // Nobody need wait for an answer to what is no request.
                Parsed::Wrong(_) => {
                    locked().rests[index] = Rest { bytes: connection.came, ..Rest::default() };
                    return;
                }
            };
            connection.send(reply).await;
        }
        let (bytes, ended) = (connection.came.clone(), connection.end.is_some());
        locked().rests[index] = Rest { bytes, ended, ..Rest::default() };
    }
}

fn expects(head: &Message) -> bool {
    head.framing != Framing::None && !head.values("expect").is_empty()
}
