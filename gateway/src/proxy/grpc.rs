//! Errors as clients of gRPC read them: an answer of trailers only, with a `grpc-status` in its head
//! (the protocol's "PROTOCOL-HTTP2" document, "Responses").

use super::answer::ErrorCode;
use crate::message::{Fields, ResponseHead};
use http::StatusCode;

/// What gRPC calls an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Unknown = 2,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// Whether these are the fields of a request of gRPC.
pub(super) fn is_request(fields: &Fields) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    fields.get_named(b"content-type").is_some_and(|value| {
        let starts = value.get(..TYPE.len()).is_some_and(|start| start.eq_ignore_ascii_case(TYPE));
        // `application/grpc-web` is another protocol.
        starts && matches!(value.get(TYPE.len()), None | Some(b'+' | b';' | b' '))
    })
}

/// The answer that an error becomes, which keeps its code for machines.
pub(super) fn answer(code: ErrorCode, mut fields: Fields) -> ResponseHead {
    let status = (status(code) as u8).to_string();
    fields.set(b"content-type", b"application/grpc");
    fields.append(b"grpc-status", status.as_bytes());
    fields.append(b"grpc-message", code.as_str().as_bytes());
    ResponseHead::new(StatusCode::OK, fields)
}

/// As gRPC maps statuses of HTTP ("http-grpc-status-mapping"), and closer where more is known.
fn status(code: ErrorCode) -> Status {
    match code {
        ErrorCode::ResponseTimeout | ErrorCode::TotalTimeout | ErrorCode::BodyTimeout => {
            Status::DeadlineExceeded
        }
        ErrorCode::BodyTooLarge | ErrorCode::HeadTooLarge | ErrorCode::UriTooLong => {
            Status::ResourceExhausted
        }
        ErrorCode::ConnectMethod | ErrorCode::BadMethod | ErrorCode::BadVersion | ErrorCode::BadCoding => {
            Status::Unimplemented
        }
        ErrorCode::BadAnswer => Status::Internal,
        code => match code.status() {
            StatusCode::BAD_REQUEST => Status::Internal,
            StatusCode::FORBIDDEN => Status::PermissionDenied,
            StatusCode::NOT_FOUND => Status::Unimplemented,
            status if status.is_client_error() => Status::Unknown,
            _ => Status::Unavailable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_grpc() {
        let is = |value: &str| is_request(&Fields::from_iter([("content-type", value)]));
        for good in ["application/grpc", "Application/gRPC+proto", "application/grpc;charset=utf-8"] {
            assert!(is(good), "{good}");
        }
        for other in ["application/grpc-web", "application/grpcx", "application/json", ""] {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn an_error_keeps_its_code() {
        let fields =
            Fields::from_iter([("content-type", "text/plain"), ("x-gateway-error", "upstream-refused")]);
        let head = answer(ErrorCode::Refused, fields);
        let shown: Vec<_> = head.fields.iter().collect();
        let expected: [(&[u8], &[u8]); 4] = [
            (b"content-type", b"application/grpc"),
            (b"x-gateway-error", b"upstream-refused"),
            (b"grpc-status", b"14"),
            (b"grpc-message", b"upstream-refused"),
        ];
        assert_eq!((head.status, shown.as_slice()), (StatusCode::OK, expected.as_slice()));
    }

    #[test]
    fn errors_of_clients_are_mapped_as_grpc_does() {
        for (code, expected) in [
            (ErrorCode::BadRequest, Status::Internal),
            (ErrorCode::BadHost, Status::Internal),
            (ErrorCode::NoRoute, Status::Unimplemented),
            (ErrorCode::VmUnknown, Status::Unimplemented),
            (ErrorCode::PortNotServed, Status::PermissionDenied),
            (ErrorCode::Misdirected, Status::Unknown),
            (ErrorCode::BadExpectation, Status::Unknown),
            (ErrorCode::BodyTooLarge, Status::ResourceExhausted),
            (ErrorCode::BodyTimeout, Status::DeadlineExceeded),
        ] {
            assert_eq!(status(code), expected, "{code:?}");
        }
    }

    #[test]
    fn only_what_the_gateway_or_a_backend_lacks_may_be_tried_again() {
        for code in ErrorCode::ALL {
            // What UNAVAILABLE says to a client of gRPC.
            let is_again = status(code) == Status::Unavailable;
            assert!(!is_again || code.status().is_server_error(), "{code:?}");
        }
    }
}
