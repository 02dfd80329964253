//! The answer of a backend piece by piece, for who does something with each one; what is left of the request
//! goes on meanwhile.

use super::{Exchange, TransferError, sender_failed};
use crate::{
    http1::Decoder,
    io::Buffers,
    proxy::{answer::Error, carrier::Downstream, client::Client, piece::poll_piece},
};
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Instant;

/// Who takes the answer, and how long nothing may move.
pub(in crate::proxy) struct Towards<'a, I> {
    pub(in crate::proxy) client: &'a mut Client<I>,
    pub(in crate::proxy) idle: Duration,
    pub(in crate::proxy) buffers: &'a Buffers,
}

impl Exchange {
    /// The next piece of the body: no larger than a buffer, and none where it has ended.
    pub(in crate::proxy) async fn piece<I: Downstream>(
        &mut self,
        towards: &mut Towards<'_, I>,
        decoder: &mut Decoder,
    ) -> Result<Option<Vec<u8>>, TransferError> {
        let buffers = towards.buffers;
        self.meanwhile(towards, |exchange, _, cx, _| {
            let Self { lease, inbox, .. } = exchange;
            let piece = ready!(poll_piece(cx, &mut lease.io, inbox, decoder, buffers));
            Poll::Ready(piece.map_err(|_| {
                exchange.lease.failed();
                TransferError::Backend
            }))
        })
        .await
    }

    /// Waits for what decides about the answer, before anything of it is sent. What is left of the request goes
    /// on meanwhile: nobody else may read from a client whose body is on its way.
    pub(in crate::proxy) async fn while_waiting<I: Downstream, T>(
        &mut self,
        client: &mut Client<I>,
        buffers: &Buffers,
        mut future: impl Future<Output = T> + Unpin,
    ) -> Result<T, Error> {
        poll_fn(|cx| {
            if let Poll::Ready(error) = self.poll_upload(cx, client, buffers) {
                return Poll::Ready(Err(sender_failed(error)));
            }
            match Pin::new(&mut future).poll(cx) {
                Poll::Ready(output) => Poll::Ready(Ok(output)),
                Poll::Pending => self.poll_over(cx, client, None, buffers).map(Err),
            }
        })
        .await
    }

    /// Waits for something that has a deadline of its own.
    pub(in crate::proxy) async fn while_uploading<I: Downstream, T>(
        &mut self,
        towards: &mut Towards<'_, I>,
        mut future: impl Future<Output = T> + Unpin,
    ) -> Result<T, TransferError> {
        self.meanwhile(towards, |_, _, cx, moved| {
            *moved = true;
            Pin::new(&mut future).poll(cx).map(Ok)
        })
        .await
    }

    /// Writes all of it to the client.
    pub(in crate::proxy) async fn emit<I: Downstream>(
        &mut self,
        towards: &mut Towards<'_, I>,
        text: &[u8],
    ) -> Result<(), TransferError> {
        let mut left = text;
        self.meanwhile(towards, |_, client, cx, moved| {
            while !left.is_empty() {
                match ready!(Pin::new(&mut client.io).poll_write(cx, left)) {
                    Ok(written @ 1..) => {
                        left = left.get(written..).unwrap_or_default();
                        *moved = true;
                    }
                    _ => return Poll::Ready(Err(TransferError::Client)),
                }
            }
            Pin::new(&mut client.io).poll_flush(cx).map_err(|_| TransferError::Client)
        })
        .await
    }

    /// Waits for `step`, while what is left of the request goes to the backend, the client is there, and
    /// something moves: `step` says whether it has.
    async fn meanwhile<I: Downstream, T>(
        &mut self,
        towards: &mut Towards<'_, I>,
        mut step: impl FnMut(
            &mut Self,
            &mut Client<I>,
            &mut Context<'_>,
            &mut bool,
        ) -> Poll<Result<T, TransferError>>,
    ) -> Result<T, TransferError> {
        let Towards { client, idle, buffers } = towards;
        let mut since = None;
        poll_fn(|cx| {
            let before = self.upload.moved();
            if let Poll::Ready(error) = self.poll_upload(cx, client, buffers) {
                return Poll::Ready(Err(TransferError::of_upload(error)));
            }
            let mut moved = self.upload.moved() != before || self.upload.waits_for_plugin();
            if let Poll::Ready(done) = step(self, client, cx, &mut moved) {
                return Poll::Ready(done);
            }
            if moved {
                since = None;
            }
            let since = *since.get_or_insert_with(Instant::now);
            if let Poll::Ready(over) = self.poll_over(cx, client, Some(since), buffers) {
                return Poll::Ready(Err(TransferError::of_waiting(&over)));
            }
            client.timer.poll(cx, since + *idle).map(|()| Err(TransferError::Idle))
        })
        .await
    }
}
