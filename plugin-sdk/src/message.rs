//! What requests and answers have in common.

use crate::{EditError, Exchange, Headers, host::types};

/// A [`Request`](crate::Request) or a [`Response`](crate::Response): something with header fields, in
/// an exchange.
///
/// ```
/// use vers_plugin::{Message, testing};
///
/// fn is_html(message: &impl Message) -> bool {
///     message.headers().get_str("content-type").is_some_and(|kind| kind.starts_with("text/html"))
/// }
///
/// assert!(is_html(&testing::response(200).header("content-type", "text/html").build()));
/// assert!(!is_html(&testing::request("GET", "/").build()));
/// ```
pub trait Message: sealed::Sealed {
    /// The header fields, to read and to change.
    fn headers(&self) -> &Headers;

    /// The exchange that this belongs to.
    fn exchange(&self) -> &Exchange;

    /// Many edits in one call to the gateway. Returns the names whose edit was refused.
    #[doc(hidden)]
    fn edit_headers(&self, edits: &Edits<'_>) -> Vec<(String, EditError)>;
}

/// Edits, in the order in which they are done.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Edits<'a> {
    /// Names to remove.
    pub remove: &'a [String],
    /// Fields that replace all of their name.
    pub set: &'a [(String, Vec<u8>)],
    /// Fields to add.
    pub append: &'a [(String, Vec<u8>)],
}

pub(crate) fn refused(names: Vec<(String, types::EditError)>) -> Vec<(String, EditError)> {
    names.into_iter().map(|(name, error)| (name, error.into())).collect()
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::Request {}
    impl Sealed for crate::Response {}
}
