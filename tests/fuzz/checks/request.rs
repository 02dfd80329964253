//! Heads of requests: read as httparse reads them, or refused for a reason that is listed here.

use super::{LIMITS, Lines, WIDE, consistent, lines, shown};
use http::{Method, Version};
use vers_gateway::{
    http1::{BodyLength, Malformed, parse_request, request_body, write_request},
    message::{Fields, RequestHead},
};

/// Panics where a rule is broken.
pub(crate) fn check(bytes: &[u8]) {
    let verdict = parse_request(bytes, LIMITS);
    whatever_the_pieces(bytes, &verdict);
    let theirs = read_by_httparse(bytes);
    match (&verdict, theirs) {
        (Ok(Some((head, length))), theirs) => {
            let theirs = theirs.unwrap_or_else(|| panic!("httparse refuses {}", shown(bytes)));
            assert_eq!(*length, theirs.length, "{}", shown(bytes));
            same(head, &theirs);
            consistent(&head.fields);
            written_and_read_again(head);
            framed(head);
        }
        (Ok(None), theirs) => assert!(theirs.is_none(), "it is whole: {}", shown(bytes)),
        (Err(error), Some(theirs)) => stricter(*error, bytes, &theirs),
        (Err(_), None) => {}
    }
}

type Verdict = Result<Option<(RequestHead, usize)>, Malformed>;

/// Another reader's view.
struct Theirs {
    method: String,
    target: Vec<u8>,
    version: Version,
    fields: Lines,
    length: usize,
}

fn read_by_httparse(bytes: &[u8]) -> Option<Theirs> {
    let mut room = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut room);
    let Ok(httparse::Status::Complete(length)) = request.parse(bytes) else { return None };
    Some(Theirs {
        method: request.method?.to_owned(),
        target: request.path?.as_bytes().to_vec(),
        version: if request.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 },
        fields: request.headers.iter().map(|h| (h.name.as_bytes().to_vec(), h.value.to_vec())).collect(),
        length,
    })
}

fn same(head: &RequestHead, theirs: &Theirs) {
    assert_eq!(head.method.as_str(), theirs.method);
    assert_eq!(head.version, theirs.version);
    assert_eq!(lines(&head.fields), theirs.fields);
    let ours = target(head);
    let (ours, theirs) = (ours.as_slice(), theirs.target.as_slice());
    let Some(authority) = head.authority() else {
        return assert_eq!(ours, theirs, "{} for {}", shown(ours), shown(theirs));
    };
    // RFC 9112 §3.2.2: `http://authority`, and what is left of it is the path, or stands for one.
    let rest = theirs.split_at(theirs.iter().position(|byte| *byte == b'/').expect("a scheme") + 2).1;
    let rest = rest.strip_prefix(authority).expect("the authority follows the scheme");
    let is_same = match rest {
        b"" => matches!(ours, b"/" | b"*"),
        [b'?', ..] => ours.strip_prefix(b"/") == Some(rest),
        _ => ours == rest,
    };
    assert!(is_same, "{} for {}", shown(ours), shown(theirs));
}

/// Path and query as they go to the backend.
fn target(head: &RequestHead) -> Vec<u8> {
    let query = head.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}{query}", head.path()).into_bytes()
}

/// A backend reads what the gateway read.
fn written_and_read_again(head: &RequestHead) {
    let mut text = Vec::new();
    write_request(head, &mut text);
    text.extend_from_slice(b"\r\n");
    let read = parse_request(&text, WIDE);
    let Ok(Some((again, length))) = read else { panic!("{read:?} of {}", shown(&text)) };
    assert_eq!(length, text.len(), "{}", shown(&text));
    assert_eq!((&again.method, target(&again)), (&head.method, target(head)));
    assert_eq!(lines(&again.fields), lines(&head.fields));
    let mut twice = Vec::new();
    write_request(&again, &mut twice);
    assert_eq!(shown(&[&twice[..], b"\r\n"].concat()), shown(&text));
}

/// RFC 9112 §6.3, said in another way.
fn framed(head: &RequestHead) {
    let got = request_body(head);
    let lengths: Vec<&[u8]> = head.fields.all_named(b"content-length").collect();
    let codings: Vec<&[u8]> = head.fields.all_named(b"transfer-encoding").collect();
    let expected = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Some(BodyLength::None),
        ([digits], []) => {
            number(digits).map(|n| if n == 0 { BodyLength::None } else { BodyLength::Exact(n) })
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && head.version == Version::HTTP_11 => {
            Some(BodyLength::Chunked)
        }
        _ => None,
    };
    assert_eq!(got.ok(), expected, "{:?}", lines(&head.fields));
}

/// A decimal number that fits into 63 bits.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let significant = &digits[digits.iter().take_while(|digit| **digit == b'0').count()..];
    if digits.is_empty() || significant.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = significant.iter().fold(0_u128, |value, digit| value * 10 + u128::from(digit - b'0'));
    u64::try_from(value).ok().filter(|value| *value < 1 << 63)
}

/// The verdict does not depend on how the bytes arrive: nothing is known before the head is whole,
/// and what was refused once is refused for good.
fn whatever_the_pieces(bytes: &[u8], verdict: &Verdict) {
    for cut in cuts(bytes.len()) {
        let early = parse_request(&bytes[..cut], LIMITS);
        match (&early, verdict) {
            (Ok(Some((_, length))), Ok(Some((_, whole)))) => assert_eq!(length, whole),
            (Ok(None), Ok(Some((_, whole)))) => assert!(cut < *whole, "it was whole after {whole} of {cut}"),
            (Ok(None), _) | (Err(_), Err(_)) => {}
            _ => panic!("{early:?} after {cut} bytes, then {verdict:?}: {}", shown(bytes)),
        }
    }
}

/// Where to cut: everywhere in short inputs, in about a hundred places of long ones.
pub(super) fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..length).step_by(length / 100 + 1)
}

/// httparse takes it. That is fine for these reasons only.
fn stricter(error: Malformed, bytes: &[u8], theirs: &Theirs) {
    let head = &bytes[..theirs.length];
    let begins = head.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let scheme = |scheme: &[u8]| {
        theirs.target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let is_meant = match error {
        // RFC 9112 §2.2 allows a bare LF; servers before and behind us may not take it for a line's end.
        Malformed::LineEnd => has_bare_lf(head),
        // One empty line before a request (§2.2), not any number of them, and no bare LF.
        Malformed::RequestLine => begins > 2 || head.starts_with(b"\n"),
        Malformed::Method => theirs.method.len() > 32,
        // §3.2 has four forms. httparse takes any bytes, a fragment too.
        Malformed::Target => {
            let is_plain = theirs.target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
            let is_form = theirs.target.starts_with(b"/")
                || scheme(b"http://")
                || scheme(b"https://")
                || (theirs.method == Method::OPTIONS.as_str() && theirs.target == b"*");
            !is_plain || !is_form
        }
        Malformed::HeadTooLarge | Malformed::TargetTooLong => {
            head.len() > LIMITS.size || has_bare_lf(head) && bytes.len() >= LIMITS.size
        }
        Malformed::TooManyFields => theirs.fields.len() > LIMITS.headers,
        _ => false,
    };
    assert!(is_meant, "{error:?}, and httparse takes it: {}", shown(bytes));
}

/// Whether a line ends in LF alone.
pub(super) fn has_bare_lf(head: &[u8]) -> bool {
    head.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || head[at - 1] != b'\r'))
}

/// Fields out of any head, for checks of other parsers.
pub(super) fn fields_of(bytes: &[u8]) -> Option<Fields> {
    super::head_of(&[b"/\n", bytes].concat()).map(|head| head.fields)
}
