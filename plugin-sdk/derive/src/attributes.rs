//! What `#[serde(…)]` and comments say of a type, a field or a variant. What serde knows and this does
//! not makes a shape less exact, never wrong.

use syn::{Attribute, Expr, ExprLit, Lit, Token, meta::ParseNestedMeta};

/// What stands above a type, a field or a variant.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    /// The comment, without line breaks.
    pub(crate) description: String,
    pub(crate) rename: Option<String>,
    pub(crate) rename_all: Option<String>,
    pub(crate) has_default: bool,
    pub(crate) is_skipped: bool,
    pub(crate) is_flat: bool,
    pub(crate) is_transparent: bool,
    pub(crate) is_closed: bool,
    /// The module that reads it.
    pub(crate) with: Option<String>,
    /// Something else reads it.
    pub(crate) is_opaque: bool,
}

impl Attributes {
    pub(crate) fn of(attributes: &[Attribute]) -> Self {
        let mut said = Self::default();
        let mut lines = Vec::new();
        for attribute in attributes {
            if attribute.path().is_ident("doc") {
                lines.extend(comment(attribute));
            } else if attribute.path().is_ident("serde") {
                // What is malformed, serde's own macro reports.
                let _ = attribute.parse_nested_meta(|meta| said.read(&meta));
            }
        }
        said.description = lines.join(" ").trim().to_owned();
        said
    }

    fn read(&mut self, meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
        let name = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
        match name.as_str() {
            "rename" => self.rename = text(meta)?,
            "rename_all" => self.rename_all = text(meta)?,
            "with" => self.with = text(meta)?,
            "default" => {
                self.has_default = true;
                text(meta)?;
            }
            "skip" | "skip_deserializing" => self.is_skipped = true,
            "flatten" => self.is_flat = true,
            "transparent" => self.is_transparent = true,
            "deny_unknown_fields" => self.is_closed = true,
            "deserialize_with" | "from" | "try_from" | "tag" | "untagged" | "content" | "remote" => {
                self.is_opaque = true;
                text(meta)?;
            }
            _ => {
                text(meta)?;
            }
        }
        Ok(())
    }
}

/// The text of `key = "text"`, or of `key(deserialize = "text")`.
fn text(meta: &ParseNestedMeta<'_>) -> syn::Result<Option<String>> {
    if meta.input.peek(Token![=]) {
        let value: Expr = meta.value()?.parse()?;
        return Ok(literal(&value));
    }
    let mut found = None;
    if meta.input.peek(syn::token::Paren) {
        meta.parse_nested_meta(|inner| {
            let value = text(&inner)?;
            if inner.path.is_ident("deserialize") {
                found = value;
            }
            Ok(())
        })?;
    }
    Ok(found)
}

fn comment(attribute: &Attribute) -> Option<String> {
    let line = literal(&attribute.meta.require_name_value().ok()?.value)?;
    Some(line.trim().to_owned())
}

fn literal(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}
