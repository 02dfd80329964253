//! The handles that guests hold, as types. One call runs at a time in an instance, so a handle needs
//! no table: its type says what it stands for, and only headers come in two kinds.

#![allow(unreachable_pub, reason = "the generated bindings export them again")]

/// The exchange that the instance is called for.
#[derive(Debug)]
pub enum ExchangeHandle {}

/// The request.
#[derive(Debug)]
pub enum RequestHandle {}

/// The answer.
#[derive(Debug)]
pub enum ResponseHandle {}

/// What became of both.
#[derive(Debug)]
pub enum CompletedHandle {}

/// A connection that carries bytes.
#[derive(Debug)]
pub enum ConnectionHandle {}

/// What became of it.
#[derive(Debug)]
pub enum ClosedHandle {}

/// The headers of a head: [`REQUEST`] or [`RESPONSE`].
#[derive(Debug)]
pub enum HeadersHandle {}

/// Number of the handle to the request's headers.
pub(super) const REQUEST: u32 = 0;

/// Number of the handle to the connection.
pub(super) const CONNECTION: u32 = 0;

/// Number of the handle to the answer's headers.
pub(super) const RESPONSE: u32 = 1;
