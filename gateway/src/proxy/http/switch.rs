//! The way from a request to a tunnel.

use super::{After, Outgoing, Session};
use crate::{
    headers::{Upgrade, hop_by_hop, hop_by_hop::Options, websocket},
    http1::BodyLength,
    message::{Fields, Known, RequestHead, ResponseHead},
    proxy::{
        answer::Error,
        carrier::Downstream,
        client::Client,
        exchange::Exchange,
        tunnel::{self, Line},
    },
    snapshot::LocalRoute,
};
use http::{Method, StatusCode, Version};

/// A protocol change that was asked for.
pub(super) struct Asked {
    pub(super) upgrade: Upgrade,
    /// What a WebSocket server must answer.
    accept: Option<websocket::Accept>,
}

impl Asked {
    fn is_answered_by(&self, agreed: &Upgrade, fields: &Fields) -> bool {
        let is_handshake =
            !agreed.names_websocket() || self.accept.is_some_and(|accept| accept.is_in(fields));
        self.upgrade.allows(agreed) && is_handshake
    }
}

impl Session<'_> {
    /// The protocol change that the request asks for, where the route has it. RFC 9110 §7.8: HTTP/1.0
    /// has none. One with a body would have two meanings.
    pub(super) fn upgrade(
        &self,
        head: &RequestHead,
        options: Options,
        route: &LocalRoute,
        opens_tunnel: bool,
    ) -> Result<Option<Box<Asked>>, Error> {
        let is_message = self.version == Version::HTTP_11 && self.body == BodyLength::None;
        let may = is_message || opens_tunnel;
        let upgrade = options.upgrade.filter(|_| may);
        let Some(upgrade) = upgrade.and_then(|upgrade| upgrade.limited_to(&route.route.upgrades)) else {
            return Ok(None);
        };
        let handshake = websocket::handshake(&head.fields);
        if !upgrade.is_to_websocket() {
            return Ok(Some(Box::new(Asked { upgrade, accept: handshake.ok() })));
        }
        if head.method != Method::GET {
            return Ok(None);
        }
        let accept = handshake.map_err(Error::Handshake)?;
        Ok(Some(Box::new(Asked { upgrade, accept: Some(accept) })))
    }

    /// Opens the tunnel that follows a 101. Only now, with the backend's agreement in hand, may bytes
    /// that are not HTTP flow.
    pub(super) async fn switch<I: Downstream>(
        &mut self,
        client: &mut Client<I>,
        mut head: ResponseHead,
        exchange: Exchange,
    ) -> After {
        self.count(head.status);
        let written = if client.io.frames() {
            // RFC 8441 §5: what HTTP/2 has no need of, and 200 for 101.
            hop_by_hop::strip(&mut head.fields);
            head.fields.remove(Known::SecWebSocketAccept);
            head.status = StatusCode::OK;
            self.tell(client, &mut head, false)
        } else {
            self.write_head(client, &head).await
        };
        let (Ok(()), Some(route)) = (written, self.route.take()) else { return After::Close };
        let Some((side, _seat)) = exchange.into_tunnel(&mut client.inbox, self.buffers()) else {
            return After::Close;
        };
        After::Tunnel(route, Box::new(tunnel::Upstream { side, _seat }), Line::Request(self.entry.take()))
    }
}

/// A backend's 101, where it is the answer to what was asked.
pub(super) fn switching(
    mut head: ResponseHead,
    exchange: Box<Exchange>,
    asked: Option<&Asked>,
) -> Result<Outgoing, Error> {
    let agreed = hop_by_hop::strip(&mut head.fields).upgrade;
    let (Some(asked), Some(agreed)) = (asked, agreed) else { return Err(Error::WrongUpgrade) };
    // Before the whole request is there, nobody can have agreed to it.
    if !exchange.is_sent() || !asked.is_answered_by(&agreed, &head.fields) {
        return Err(Error::WrongUpgrade);
    }
    head.fields.remove(Known::ContentLength);
    agreed.restore(&mut head.fields);
    Ok(Outgoing::Switching(head, exchange))
}
