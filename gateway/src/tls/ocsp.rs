//! What an OCSP response says (RFC 6960 §4.2), as far as it must be known before it is shown to clients.
//! Its signature is for them to check. Pure.

use std::time::{Duration, SystemTime};
use x509_parser::{
    asn1_rs::{Any, Class, FromDer as _, Tag},
    time::ASN1Time,
};

/// `id-pkix-ocsp-basic`, 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// What a response says of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Response {
    /// Until when it says so; for good where it does not say.
    pub(super) until: Option<SystemTime>,
    /// Whether the certificate counts no more.
    pub(super) is_revoked: bool,
}

/// Why an OCSP response is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OcspError {
    /// Not what RFC 6960 describes.
    #[error("it is no OCSP response in DER")]
    Malformed,
    /// The responder had nothing to say.
    #[error("it holds no answer, but the error {0}")]
    Status(&'static str),
    /// Nothing in it has the certificate's serial number.
    #[error("it is about another certificate")]
    Other,
    /// Its time is over.
    #[error("it has expired on {}", humantime::format_rfc3339_seconds(*.0))]
    Expired(SystemTime),
    /// The certificate counts no more. Clients are shown that.
    #[error("it says that the certificate is revoked")]
    Revoked,
}

/// Reads what a response says of the certificate with this serial number.
pub(super) fn read(der: &[u8], serial: &[u8]) -> Result<Response, OcspError> {
    let (rest, mut response) = sequence(der)?;
    let status = next(&mut response)?;
    if !rest.is_empty() || status.tag() != Tag::Enumerated {
        return Err(OcspError::Malformed);
    }
    match status.data {
        [0] => {}
        [1] => return Err(OcspError::Status("malformedRequest")),
        [2] => return Err(OcspError::Status("internalError")),
        [3] => return Err(OcspError::Status("tryLater")),
        [5] => return Err(OcspError::Status("sigRequired")),
        [6] => return Err(OcspError::Status("unauthorized")),
        _ => return Err(OcspError::Malformed),
    }
    let (_, mut bytes) = sequence(tagged(&mut response, 0).ok_or(OcspError::Malformed)?)?;
    let (kind, basic) = (next(&mut bytes)?, next(&mut bytes)?);
    if kind.data != BASIC || basic.tag() != Tag::OctetString {
        return Err(OcspError::Malformed);
    }
    let (_, basic) = sequence(basic.data)?;
    let (_, mut data) = sequence(basic)?;
    // The version, the responder's name or the hash of its key, and the time of the answer.
    tagged(&mut data, 0);
    next(&mut data)?;
    next(&mut data)?;
    let (_, mut all) = sequence(data)?;
    while !all.is_empty() {
        let (rest, one) = sequence(all)?;
        all = rest;
        if let Some(response) = single(one, serial)? {
            return Ok(response);
        }
    }
    Err(OcspError::Other)
}

/// What is said of one certificate, where it is this one.
fn single(mut one: &[u8], serial: &[u8]) -> Result<Option<Response>, OcspError> {
    let (rest, mut id) = sequence(one)?;
    one = rest;
    // The hash's algorithm, and the hashes of the issuer's name and key.
    for _ in 0..3 {
        next(&mut id)?;
    }
    if without_zeros(next(&mut id)?.data) != without_zeros(serial) {
        return Ok(None);
    }
    let status = next(&mut one)?;
    next(&mut one)?;
    let until = tagged(&mut one, 0).map(time).transpose()?;
    Ok(Some(Response { until, is_revoked: status.tag() == Tag(1) }))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// What is in a sequence, behind what comes after it.
fn sequence(bytes: &[u8]) -> Result<(&[u8], &[u8]), OcspError> {
    let (rest, any) = Any::from_der(bytes).map_err(|_| OcspError::Malformed)?;
    if any.tag() == Tag::Sequence { Ok((rest, any.data)) } else { Err(OcspError::Malformed) }
}

fn next<'a>(bytes: &mut &'a [u8]) -> Result<Any<'a>, OcspError> {
    let (rest, any) = Any::from_der(bytes).map_err(|_| OcspError::Malformed)?;
    *bytes = rest;
    Ok(any)
}

/// What has this tag of its context, where it comes next.
fn tagged<'a>(bytes: &mut &'a [u8], tag: u32) -> Option<&'a [u8]> {
    let (rest, any) = Any::from_der(bytes).ok()?;
    if any.class() != Class::ContextSpecific || any.tag() != Tag(tag) {
        return None;
    }
    *bytes = rest;
    Some(any.data)
}

fn time(bytes: &[u8]) -> Result<SystemTime, OcspError> {
    let (_, time) = ASN1Time::from_der(bytes).map_err(|_| OcspError::Malformed)?;
    let since = Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0));
    SystemTime::UNIX_EPOCH.checked_add(since).ok_or(OcspError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let [high, low] = u16::try_from(content.len()).expect("short").to_be_bytes();
        let length = match (high, low) {
            (0, ..128) => vec![low],
            (0, _) => vec![0x81, low],
            _ => vec![0x82, high, low],
        };
        [&[tag][..], &length, &content].concat()
    }

    fn about(serial: &[u8], status: u8, until: &[u8]) -> Vec<u8> {
        let id = der(0x30, &[&der(0x30, &[]), &der(4, &[b"a"]), &der(4, &[b"b"]), &der(2, &[serial])]);
        let until = if until.is_empty() { Vec::new() } else { der(0xa0, &[&der(0x18, &[until])]) };
        der(0x30, &[&id, &der(status, &[]), &der(0x18, &[b"20200101000000Z"]), &until])
    }

    fn response(version: &[u8], all: &[&[u8]]) -> Vec<u8> {
        let data = der(0x30, &[version, &der(0xa2, &[]), &der(0x18, &[b"20200101000000Z"]), &der(0x30, all)]);
        let basic = der(0x30, &[&data, &der(0x30, &[]), &der(3, &[b"\0"])]);
        let bytes = der(0x30, &[&der(6, &[BASIC]), &der(4, &[&basic])]);
        der(0x30, &[&der(10, &[b"\0"]), &der(0xa0, &[&bytes])])
    }

    const SERIAL: &[u8] = &[0, 0x90, 7];

    #[test]
    fn what_is_said_of_a_certificate() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let (other, good) = (about(&[7], 0x80, b""), about(SERIAL, 0x80, b"20300101000000Z"));
        let said = |until, is_revoked| Ok(Response { until, is_revoked });
        assert_eq!(read(&response(b"", &[&good]), SERIAL), said(at(1_893_456_000), false));
        assert_eq!(read(&response(b"", &[&other, &good]), SERIAL), said(at(1_893_456_000), false));
        let version = der(0xa0, &[&der(2, &[b"\0"])]);
        assert_eq!(read(&response(&version, &[&good]), &[0x90, 7]), said(at(1_893_456_000), false));
        assert_eq!(read(&response(b"", &[&about(SERIAL, 0x80, b"")]), SERIAL), said(None, false));
        assert_eq!(read(&response(b"", &[&about(SERIAL, 0xa1, b"")]), SERIAL), said(None, true));
        assert_eq!(read(&response(b"", &[&other]), SERIAL), Err(OcspError::Other));
        assert_eq!(read(&response(b"", &[]), SERIAL), Err(OcspError::Other));
    }

    #[test]
    fn what_is_none() {
        let later = der(0x30, &[&der(10, &[&[3]])]);
        assert_eq!(read(&later, SERIAL), Err(OcspError::Status("tryLater")));
        let good = response(b"", &[&about(SERIAL, 0x80, b"20300101000000Z")]);
        for length in 0..good.len() {
            assert_eq!(read(&good[..length], SERIAL), Err(OcspError::Malformed), "{length} bytes");
        }
        assert_eq!(read(&[&good[..], b"\0"].concat(), SERIAL), Err(OcspError::Malformed));
        assert_eq!(read(b"-----BEGIN OCSP RESPONSE-----", SERIAL), Err(OcspError::Malformed));
        for byte in 0..good.len() {
            let mut changed = good.clone();
            changed[byte] ^= 0x1f;
            // Whatever it says now, it says it.
            let _ = read(&changed, SERIAL);
        }
    }
}
