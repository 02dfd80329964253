//! Heads of answers: read as httparse reads them, or refused for a reason that is listed here.

use super::{LIMITS, Lines, WIDE, consistent, lines, request, shown};
use http::{Method, Version};
use vers_gateway::{
    http1::{BodyLength, Malformed, parse_response, response_body, write_status_line},
    message::ResponseHead,
};

/// Panics where a rule is broken.
pub(crate) fn check(bytes: &[u8]) {
    let verdict = parse_response(bytes, LIMITS);
    whatever_the_pieces(bytes, &verdict);
    let theirs = read_by_httparse(bytes);
    match (&verdict, theirs) {
        (Ok(Some((head, length))), theirs) => {
            let theirs = theirs.unwrap_or_else(|| panic!("httparse refuses {}", shown(bytes)));
            assert_eq!(*length, theirs.length, "{}", shown(bytes));
            assert_eq!((head.status.as_u16(), head.version), (theirs.code, theirs.version));
            assert_eq!(lines(&head.fields), theirs.fields);
            consistent(&head.fields);
            written_and_read_again(head);
            [Method::GET, Method::HEAD].iter().for_each(|method| framed(method, head));
        }
        (Ok(None), theirs) => assert!(theirs.is_none(), "it is whole: {}", shown(bytes)),
        (Err(error), Some(theirs)) => stricter(*error, bytes, &theirs),
        (Err(_), None) => {}
    }
}

/// Another reader's view.
struct Theirs {
    code: u16,
    version: Version,
    fields: Lines,
    length: usize,
}

fn read_by_httparse(bytes: &[u8]) -> Option<Theirs> {
    let mut room = [httparse::EMPTY_HEADER; 256];
    let mut response = httparse::Response::new(&mut room);
    let Ok(httparse::Status::Complete(length)) = response.parse(bytes) else { return None };
    Some(Theirs {
        code: response.code?,
        version: if response.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 },
        fields: response.headers.iter().map(|h| (h.name.as_bytes().to_vec(), h.value.to_vec())).collect(),
        length,
    })
}

/// A client reads what the gateway read. The reason is not kept: it means nothing (RFC 9112 §4).
fn written_and_read_again(head: &ResponseHead) {
    let mut text = Vec::new();
    write_status_line(head.status, &mut text);
    head.fields.write(&mut text);
    text.extend_from_slice(b"\r\n");
    let read = parse_response(&text, WIDE);
    let Ok(Some((again, length))) = read else { panic!("{read:?} of {}", shown(&text)) };
    assert_eq!(length, text.len(), "{}", shown(&text));
    assert_eq!(again.status, head.status);
    assert_eq!(lines(&again.fields), lines(&head.fields));
}

/// RFC 9112 §6.3, said in another way.
fn framed(method: &Method, head: &ResponseHead) {
    let got = response_body(method, head).ok();
    let lengths: Vec<&[u8]> = head.fields.all_named(b"content-length").collect();
    let codings: Vec<&[u8]> = head.fields.all_named(b"transfer-encoding").collect();
    let status = head.status.as_u16();
    let never = status < 200 || status == 204;
    let silent = never || status == 304 || *method == Method::HEAD;
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let expected = match (lengths.as_slice(), codings.as_slice()) {
        ([], [coding]) if is_chunked(coding) && head.version == Version::HTTP_11 && !never => {
            Some(if silent { BodyLength::None } else { BodyLength::Chunked })
        }
        ([], []) => Some(if silent { BodyLength::None } else { BodyLength::UntilClose }),
        ([digits], []) => request::number(digits).map(|number| match number {
            _ if silent => BodyLength::None,
            0 => BodyLength::None,
            number => BodyLength::Exact(number),
        }),
        _ => None,
    };
    assert_eq!(got, expected, "{method} {status} {:?}", lines(&head.fields));
}

/// As of requests.
fn whatever_the_pieces(bytes: &[u8], verdict: &Result<Option<(ResponseHead, usize)>, Malformed>) {
    for cut in request::cuts(bytes.len()) {
        let early = parse_response(&bytes[..cut], LIMITS);
        match (&early, verdict) {
            (Ok(Some((_, length))), Ok(Some((_, whole)))) => assert_eq!(length, whole),
            (Ok(None), Ok(Some((_, whole)))) => assert!(cut < *whole, "it was whole after {whole} of {cut}"),
            (Ok(None), _) | (Err(_), Err(_)) => {}
            _ => panic!("{early:?} after {cut} bytes, then {verdict:?}: {}", shown(bytes)),
        }
    }
}

/// httparse takes it. That is fine for these reasons only.
fn stricter(error: Malformed, bytes: &[u8], theirs: &Theirs) {
    let head = &bytes[..theirs.length];
    let is_meant = match error {
        Malformed::LineEnd => request::has_bare_lf(head),
        // No empty line comes before an answer, and codes have a meaning (RFC 9110 §15).
        Malformed::StatusLine => !head.starts_with(b"HTTP/") || !(100..600).contains(&theirs.code),
        Malformed::HeadTooLarge | Malformed::TargetTooLong => {
            head.len() > LIMITS.size || request::has_bare_lf(head) && bytes.len() >= LIMITS.size
        }
        Malformed::TooManyFields => theirs.fields.len() > LIMITS.headers,
        _ => false,
    };
    assert!(is_meant, "{error:?}, and httparse takes it: {}", shown(bytes));
}
