//! Addresses where no port is anybody else's.

/// A loopback address of one test of this process: each test that needs ports by their numbers has a block of
/// its own, 64 to 127.
pub fn own_ip(block: u8) -> String {
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("127.{block}.{high}.{low}")
}
