//! Fields that say something of a body's bytes, and are wrong where the bytes become others.

use crate::message::Fields;

/// Sums of the bytes: of HTTP (RFC 9530, RFC 3230, RFC 1864), and those of object stores.
const SUMS: [&[u8]; 9] = [
    b"content-digest",
    b"repr-digest",
    b"digest",
    b"content-md5",
    b"x-amz-checksum-crc32",
    b"x-amz-checksum-crc32c",
    b"x-amz-checksum-crc64nvme",
    b"x-amz-checksum-sha1",
    b"x-amz-checksum-sha256",
];

/// Removes the sums of a body from a head, or from trailers.
pub fn remove_sums(fields: &mut Fields) {
    SUMS.iter().for_each(|name| fields.remove_named(name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_go_and_all_else_stays() {
        let mut fields = Fields::new();
        for name in [&b"Content-Digest"[..], b"x-amz-checksum-sha256", b"x-amz-meta-a", b"digest", b"etag"] {
            fields.append(name, b"1");
        }
        remove_sums(&mut fields);
        let left: Vec<_> = fields.iter().map(|(name, _)| name.to_vec()).collect();
        assert_eq!(left, [b"x-amz-meta-a".to_vec(), b"etag".to_vec()]);
    }
}
