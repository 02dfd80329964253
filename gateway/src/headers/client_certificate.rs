//! The certificate that a client showed, as backends and plugins are told: `Client-Cert` (RFC 9440),
//! and `X-Forwarded-Client-Cert` for those who would rather not read certificates.

use crate::message::Fields;
use data_encoding::{BASE64, HEXLOWER};
use std::fmt::Write as _;

const CLIENT_CERT: &[u8] = b"client-cert";
const X_FORWARDED_CLIENT_CERT: &[u8] = b"x-forwarded-client-cert";

/// Largest certificate that is passed on as a whole: backends have limits, too.
const LARGEST: usize = 6 * 1024;

/// Bytes of `X-Forwarded-Client-Cert` behind which no further name is added.
const ENOUGH: usize = 4 * 1024;

/// Both fields of a client's certificate, made once for its connection.
#[derive(Debug)]
pub struct ClientCertificate {
    client_cert: Option<String>,
    forwarded: String,
}

impl ClientCertificate {
    /// Of a certificate, its SHA-256, its subject, and its names that are host names and URIs.
    pub fn new(der: &[u8], sha256: &[u8], subject: &str, dns: &[String], uris: &[String]) -> Self {
        let client_cert = (der.len() <= LARGEST).then(|| format!(":{}:", BASE64.encode(der)));
        let mut forwarded = format!("Hash={}", HEXLOWER.encode(sha256));
        pair(&mut forwarded, "Subject", subject);
        uris.iter().for_each(|uri| pair(&mut forwarded, "URI", uri));
        dns.iter().for_each(|name| pair(&mut forwarded, "DNS", name));
        Self { client_cert, forwarded }
    }

    /// What `X-Forwarded-Client-Cert` says.
    pub fn forwarded(&self) -> &str {
        &self.forwarded
    }

    /// Puts both fields in the place of whatever is there under these names.
    pub(super) fn put(&self, fields: &mut Fields) {
        fields.retain(|_, name| {
            !name.eq_ignore_ascii_case(X_FORWARDED_CLIENT_CERT) && !is_of_client_cert(name)
        });
        if let Some(client_cert) = &self.client_cert {
            fields.append(CLIENT_CERT, client_cert.as_bytes());
        }
        fields.append(X_FORWARDED_CLIENT_CERT, self.forwarded.as_bytes());
    }
}

/// `Client-Cert`, `Client-Cert-Chain` (RFC 9440 §2).
fn is_of_client_cert(name: &[u8]) -> bool {
    name.get(..CLIENT_CERT.len()).is_some_and(|start| start.eq_ignore_ascii_case(CLIENT_CERT))
}

/// Adds `;NAME="text"`. Whoever made the certificate chose the text: nothing in it ends the quotes, and
/// nothing in it is more than printable ASCII.
fn pair(text: &mut String, name: &str, value: &str) {
    if text.len() + 3 * value.len() > ENOUGH {
        return;
    }
    text.push(';');
    text.push_str(name);
    text.push_str("=\"");
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => {
                // Writing into a String cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(subject: &str, dns: &[&str]) -> String {
        let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
        ClientCertificate::new(b"der", &[0xab, 0x01], subject, &dns, &["spiffe://a/b".to_owned()]).forwarded
    }

    #[test]
    fn nobody_writes_fields_by_a_name_in_a_certificate() {
        assert_eq!(
            forwarded("CN=a", &["a.test", "b.test"]),
            "Hash=ab01;Subject=\"CN=a\";URI=\"spiffe://a/b\";DNS=\"a.test\";DNS=\"b.test\""
        );
        assert_eq!(
            forwarded("a\";DNS=\"evil\r\nhost: x\\ü%", &[]),
            "Hash=ab01;Subject=\"a\\\";DNS=\\\"evil%0D%0Ahost: x\\\\%C3%BC%25\";URI=\"spiffe://a/b\""
        );
    }

    #[test]
    fn a_certificate_with_many_names_stays_small() {
        let name = "x".repeat(200);
        assert!(forwarded("CN=a", &vec![name.as_str(); 1000]).len() <= ENOUGH);
        assert!(ClientCertificate::new(&vec![0; LARGEST + 1], &[], "", &[], &[]).client_cert.is_none());
    }

    #[test]
    fn what_was_there_is_replaced() {
        let mut fields = Fields::new();
        for name in ["Client-Cert", "client-cert-chain", "X-Forwarded-Client-Cert", "accept"] {
            fields.append(name.as_bytes(), b"forged");
        }
        ClientCertificate::new(b"der", &[1], "CN=a", &[], &[]).put(&mut fields);
        assert_eq!(fields.get_named(b"client-cert"), Some(b":ZGVy:".as_slice()));
        assert_eq!(fields.get_named(b"client-cert-chain"), None);
        assert_eq!(
            fields.get_named(b"x-forwarded-client-cert"),
            Some(b"Hash=01;Subject=\"CN=a\"".as_slice())
        );
        assert_eq!(fields.get_named(b"accept"), Some(b"forged".as_slice()));
    }
}
