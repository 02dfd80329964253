//! A request as its backend gets it.

use super::{Session, body::wire_length, switch::Asked};
use crate::{
    http1::{BodyLength, Decoder, Malformed, write_request},
    message::{Known, RequestHead},
    proxy::{
        answer::Error, carrier::Downstream, client::Client, flow::Flow, held_body::HeldBody,
        transformed_body::TransformedBody,
    },
};
use http::{Method, Version};

/// What this gateway calls itself on the way to a backend, after the version that the client speaks
/// (RFC 9110 §7.6.3).
const VIA: &[u8] = b"1.1 vers-gateway";
const VIA_OLD: &[u8] = b"1.0 vers-gateway";
const VIA_NEW: &[u8] = b"2.0 vers-gateway";

impl Session<'_> {
    /// The request as the backend gets it, with a body that is there.
    pub(super) fn compose_whole(
        &self,
        head: &mut RequestHead,
        body: Box<HeldBody>,
        over_http2: bool,
    ) -> Box<Flow> {
        let is_told = head.fields.has(Known::ContentLength);
        let takes_one = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
        head.fields.remove(Known::ContentLength);
        let length = body.bytes().len();
        if is_told || takes_one || length > 0 {
            head.fields.append_known(Known::ContentLength, itoa::Buffer::new().format(length).as_bytes());
        }
        Box::new(Flow::whole(self.compose_head(head, over_http2), body))
    }

    /// The request as the backend gets it, with a body of which nobody knows how long it will be: plugins make it of
    /// what comes.
    pub(super) fn compose_transformed<I: Downstream>(
        &self,
        head: &mut RequestHead,
        body: Box<TransformedBody>,
        client: &Client<I>,
        limit: u64,
        over_http2: bool,
    ) -> Box<Flow> {
        if !over_http2 {
            head.fields.append_known(Known::TransferEncoding, b"chunked");
        }
        let text = self.compose_head(head, over_http2);
        let length = wire_length(self.body, client.io.frames());
        Box::new(Flow::transformed(text, Decoder::limited(length, limit), !over_http2, body))
    }

    /// The request as the backend gets it, with what has come of its body.
    pub(super) fn compose<I: Downstream>(
        &self,
        head: &mut RequestHead,
        asked: Option<&Asked>,
        client: &mut Client<I>,
        limit: u64,
        over_http2: bool,
    ) -> Result<Box<Flow>, Error> {
        // Whatever told it that there is none: a backend must not wait for one.
        if self.body == BodyLength::None
            && head.fields.get(Known::ContentLength).is_some_and(|told| told != b"0")
        {
            return Err(Error::Malformed(Malformed::ContentLength));
        }
        let chunked = self.body == BodyLength::Chunked && !over_http2;
        if chunked {
            head.fields.append_known(Known::TransferEncoding, b"chunked");
        }
        if let Some(asked) = asked {
            asked.upgrade.restore(&mut head.fields);
        }
        let text = self.compose_head(head, over_http2);
        let length = wire_length(self.body, client.io.frames());
        let mut upload = Box::new(Flow::new(text, Decoder::limited(length, limit), chunked));
        let is_whole = client.take_along(self.buffers()).map_err(Error::Malformed)?;
        upload.load(&mut client.inbox).map_err(Error::Malformed)?;
        if is_whole && length != BodyLength::None {
            upload.end_of_input(&mut client.io).map_err(Error::Malformed)?;
        }
        Ok(upload)
    }

    fn compose_head(&self, head: &mut RequestHead, over_http2: bool) -> Vec<u8> {
        let via = match self.version {
            Version::HTTP_10 => VIA_OLD,
            Version::HTTP_2 => VIA_NEW,
            _ => VIA,
        };
        head.fields.append_known(Known::Via, via);
        let mut text = self.buffers().text();
        if !over_http2 {
            write_request(head, &mut text);
            text.extend_from_slice(b"\r\n");
        }
        text
    }
}
