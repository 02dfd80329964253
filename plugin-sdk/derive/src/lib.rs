//! `#[derive(ConfigSchema)]` of `vers-plugin`, which documents it: the shape of a type, as its
//! `Deserialize` reads it, in a constant.

mod attributes;
mod case;
mod shape;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Says what the type consists of, as its `#[derive(Deserialize)]` reads it. Comments become
/// descriptions.
#[proc_macro_derive(ConfigSchema, attributes(serde))]
pub fn config_schema(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    shape::of(&input).into()
}
