//! What a configuration consists of, known when the plugin is compiled: it is written into the component,
//! where `vers-gateway plugin inspect` and editors read it without running anything.
//!
//! `#[derive(ConfigSchema)]` beside `#[derive(Deserialize)]` is all that a plugin needs. It understands
//! serde's attributes, and comments become descriptions. What it does not know (a type without a
//! schema, `#[serde(untagged)]`) may be anything there; what is accepted is still for `Deserialize`
//! and `validate` to say.
//!
//! ```
//! use vers_plugin::{prelude::*, schema};
//!
//! /// Lets known teams pass.
//! #[derive(Deserialize, ConfigSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Teams {
//!     /// Who may pass.
//!     allowed: Vec<String>,
//!     #[serde(default)]
//!     strict: bool,
//! }
//!
//! assert_eq!(
//!     schema::json::<Teams>(),
//!     r#"{"type":"object","description":"Lets known teams pass.","properties":{"allowed":{"type":"array","items":{"type":"string"},"description":"Who may pass."},"strict":{"type":"boolean"}},"required":["allowed"],"additionalProperties":false}"#,
//! );
//! ```

use crate::{
    edits::{HeaderNames, HeaderValues},
    path::{PathPattern, PathSegment},
    template::Template,
    url::BaseUrl,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    marker::PhantomData,
    num,
};

pub use vers_plugin_derive::ConfigSchema;

/// A type that says what it consists of, as its `Deserialize` reads it. Derive it.
///
/// ```
/// use vers_plugin::schema::{ConfigSchema, Shape};
///
/// assert!(matches!(<Vec<String>>::SHAPE, Shape::List(Shape::Text("string"))));
/// ```
pub trait ConfigSchema {
    /// What it consists of.
    const SHAPE: Shape;

    /// What it is for.
    const DESCRIPTION: &'static str = "";
}

/// What a value consists of.
///
/// ```
/// use vers_plugin::schema::Shape;
///
/// assert!(matches!(Shape::OneOf(&["red", "blue"]), Shape::OneOf(words) if words.len() == 2));
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Shape {
    /// Any value.
    Any,
    /// `true` or `false`.
    Boolean,
    /// A whole number, from the first to the second.
    Integer(i64, u64),
    /// A number.
    Number,
    /// Text; what it is called is `string`, or narrower.
    Text(&'static str),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any number of values.
    List(&'static Shape),
    /// Any keys.
    Map(&'static Shape),
    /// These keys, and no others where it is closed.
    Struct {
        /// In the order of the code.
        fields: &'static [Field],
        /// Whether other keys are mistakes.
        is_closed: bool,
    },
}

/// A key of a table.
///
/// ```
/// use vers_plugin::schema::{Field, Shape};
///
/// let field = Field { name: "team", description: "", is_required: true, shape: Shape::Text("string") };
/// assert!(field.is_required);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// As it is written.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// Whether it must be there.
    pub is_required: bool,
    /// What stands there.
    pub shape: Shape,
}

/// The JSON Schema of a configuration.
///
/// ```
/// assert_eq!(vers_plugin::schema::json::<bool>(), r#"{"type":"boolean"}"#);
/// ```
pub fn json<T: ConfigSchema>() -> String {
    let mut writer = Writer::<{ 64 * 1024 }>::new();
    writer.shape(&T::SHAPE, T::DESCRIPTION);
    String::from_utf8_lossy(writer.bytes.get(..writer.length).unwrap_or_default()).into_owned()
}

/// Finds out whether a type has a schema: the inherent constant comes before that of [`Unknown`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Probe<T: ?Sized>(PhantomData<T>);

/// What is said of a type that says nothing.
#[doc(hidden)]
pub trait Unknown {
    const SHAPE: Shape = Shape::Any;
    const DESCRIPTION: &'static str = "";
}

impl<T: ?Sized> Unknown for Probe<T> {}

#[doc(hidden)]
impl<T: ConfigSchema + ?Sized> Probe<T> {
    pub const SHAPE: Shape = T::SHAPE;
    pub const DESCRIPTION: &'static str = T::DESCRIPTION;
}

/// `"15s"`.
#[doc(hidden)]
pub const DURATION: Shape = Shape::Text("duration such as \"15s\"");

macro_rules! shapes {
    ($($shape:expr => $($ty:ty),+;)+) => {
        $($(impl ConfigSchema for $ty { const SHAPE: Shape = $shape; })+)+
    };
}

shapes! {
    Shape::Boolean => bool;
    Shape::Number => f32, f64;
    Shape::Text("string") => String, char, Box<str>;
    Shape::Text("path pattern such as \"/assets/*\"") => PathPattern;
    Shape::Text("path segment") => PathSegment;
    Shape::Text("template such as \"{route}\"") => Template;
    Shape::Text("URL such as \"https://infra.example.com:3000\"") => BaseUrl;
    Shape::List(&Shape::Text("header name")) => HeaderNames;
    Shape::Map(&Shape::Text("template such as \"{route}\"")) => HeaderValues;
    Shape::Integer(0, u8::MAX as u64) => u8;
    Shape::Integer(0, u16::MAX as u64) => u16;
    Shape::Integer(0, u32::MAX as u64) => u32;
    Shape::Integer(0, u64::MAX) => u64, usize;
    Shape::Integer(1, u8::MAX as u64) => num::NonZeroU8;
    Shape::Integer(1, u16::MAX as u64) => num::NonZeroU16;
    Shape::Integer(1, u32::MAX as u64) => num::NonZeroU32;
    Shape::Integer(1, u64::MAX) => num::NonZeroU64, num::NonZeroUsize;
    Shape::Integer(i8::MIN as i64, i8::MAX as u64) => i8;
    Shape::Integer(i16::MIN as i64, i16::MAX as u64) => i16;
    Shape::Integer(i32::MIN as i64, i32::MAX as u64) => i32;
    Shape::Integer(i64::MIN, i64::MAX as u64) => i64, isize;
}

impl<T: ConfigSchema> ConfigSchema for Option<T> {
    const SHAPE: Shape = T::SHAPE;
}

impl<T: ConfigSchema> ConfigSchema for Box<T> {
    const SHAPE: Shape = T::SHAPE;
}

impl<T: ConfigSchema> ConfigSchema for Vec<T> {
    const SHAPE: Shape = Shape::List(&T::SHAPE);
}

impl<T: ConfigSchema> ConfigSchema for BTreeSet<T> {
    const SHAPE: Shape = Shape::List(&T::SHAPE);
}

impl<T: ConfigSchema, S> ConfigSchema for HashSet<T, S> {
    const SHAPE: Shape = Shape::List(&T::SHAPE);
}

impl<T: ConfigSchema> ConfigSchema for BTreeMap<String, T> {
    const SHAPE: Shape = Shape::Map(&T::SHAPE);
}

impl<T: ConfigSchema, S> ConfigSchema for HashMap<String, T, S> {
    const SHAPE: Shape = Shape::Map(&T::SHAPE);
}

/// What a component says of itself without being run: the JSON text of its section
/// `vers:plugin`.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Manifest {
    pub name: &'static str,
    pub version: &'static str,
    pub description: &'static str,
    pub config: Shape,
    pub config_description: &'static str,
}

impl Manifest {
    /// How long its JSON text is.
    pub const fn length(&self) -> usize {
        let mut writer = Writer::<0>::new();
        writer.manifest(self);
        writer.length
    }

    /// Its JSON text, of just this length.
    pub const fn json<const N: usize>(&self) -> [u8; N] {
        let mut writer = Writer::<N>::new();
        writer.manifest(self);
        writer.bytes
    }
}

/// Writes JSON while the plugin is compiled, where nothing can be allocated: what does not fit is
/// counted only.
struct Writer<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

#[expect(clippy::indexing_slicing, reason = "a constant function has no iterators; each index is compared")]
impl<const N: usize> Writer<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    const fn byte(&mut self, byte: u8) {
        if self.length < N {
            self.bytes[self.length] = byte;
        }
        self.length += 1;
    }

    const fn raw(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            self.byte(bytes[at]);
            at += 1;
        }
    }

    const fn string(&mut self, text: &str) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let bytes = text.as_bytes();
        self.byte(b'"');
        let mut at = 0;
        while at < bytes.len() {
            match bytes[at] {
                byte @ (b'"' | b'\\') => {
                    self.byte(b'\\');
                    self.byte(byte);
                }
                byte @ 0..=0x1f => {
                    self.raw("\\u00");
                    self.byte(HEX[(byte >> 4) as usize]);
                    self.byte(HEX[(byte & 15) as usize]);
                }
                byte => self.byte(byte),
            }
            at += 1;
        }
        self.byte(b'"');
    }

    const fn number(&mut self, number: u64) {
        if number >= 10 {
            self.number(number / 10);
        }
        self.byte(b'0' + (number % 10) as u8);
    }

    const fn manifest(&mut self, manifest: &Manifest) {
        self.raw("{\"name\":");
        self.string(manifest.name);
        self.raw(",\"version\":");
        self.string(manifest.version);
        self.raw(",\"description\":");
        self.string(manifest.description);
        self.raw(",\"sdk\":");
        self.string(concat!("vers-plugin ", env!("CARGO_PKG_VERSION")));
        self.raw(",\"config\":");
        self.shape(&manifest.config, manifest.config_description);
        self.byte(b'}');
    }

    const fn shape(&mut self, shape: &Shape, description: &str) {
        self.byte(b'{');
        let mut is_first = false;
        match shape {
            Shape::Any => is_first = true,
            Shape::Boolean => self.raw("\"type\":\"boolean\""),
            Shape::Integer(least, most) => {
                self.raw("\"type\":\"integer\",\"minimum\":");
                if *least < 0 {
                    self.byte(b'-');
                }
                self.number(least.unsigned_abs());
                self.raw(",\"maximum\":");
                self.number(*most);
            }
            Shape::Number => self.raw("\"type\":\"number\""),
            Shape::Text(kind) => {
                self.raw("\"type\":\"string\"");
                if kind.len() != "string".len() {
                    self.raw(",\"title\":");
                    self.string(kind);
                }
            }
            Shape::OneOf(words) => {
                self.raw("\"type\":\"string\",\"enum\":[");
                let mut at = 0;
                while at < words.len() {
                    if at > 0 {
                        self.byte(b',');
                    }
                    self.string(words[at]);
                    at += 1;
                }
                self.byte(b']');
            }
            Shape::List(item) => {
                self.raw("\"type\":\"array\",\"items\":");
                self.shape(item, "");
            }
            Shape::Map(value) => {
                self.raw("\"type\":\"object\",\"additionalProperties\":");
                self.shape(value, "");
            }
            Shape::Struct { .. } => self.raw("\"type\":\"object\""),
        }
        if !description.is_empty() {
            if !is_first {
                self.byte(b',');
            }
            self.raw("\"description\":");
            self.string(description);
        }
        if let Shape::Struct { fields, is_closed } = shape {
            self.fields(fields, *is_closed);
        }
        self.byte(b'}');
    }

    const fn fields(&mut self, fields: &[Field], is_closed: bool) {
        self.raw(",\"properties\":{");
        let mut at = 0;
        while at < fields.len() {
            if at > 0 {
                self.byte(b',');
            }
            self.string(fields[at].name);
            self.byte(b':');
            self.shape(&fields[at].shape, fields[at].description);
            at += 1;
        }
        self.byte(b'}');
        let (mut at, mut required) = (0, 0);
        while at < fields.len() {
            if fields[at].is_required {
                self.raw(if required == 0 { ",\"required\":[" } else { "," });
                self.string(fields[at].name);
                required += 1;
            }
            at += 1;
        }
        if required > 0 {
            self.byte(b']');
        }
        if is_closed {
            self.raw(",\"additionalProperties\":false");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    fn read<T: ConfigSchema>() -> Value {
        serde_json::from_str(&super::json::<T>()).expect("JSON")
    }

    #[derive(Deserialize, ConfigSchema)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape counts")]
    struct Everything {
        max_age: Option<u8>,
        #[serde(rename = "type")]
        kind: Kind,
        #[serde(skip)]
        state: std::cell::Cell<bool>,
        #[serde(with = "crate::duration", default = "crate::duration::seconds::<15>")]
        wait: std::time::Duration,
        /// Says "hello"
        /// to everybody.
        greeting: Option<String>,
        unknown: std::net::IpAddr,
        inner: Vec<Inner>,
        #[serde(default)]
        headers: HeaderValues,
    }

    #[derive(Deserialize, ConfigSchema)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Red,
        #[serde(rename = "dark-blue")]
        Blue,
    }

    /// One of them.
    #[derive(Default, Deserialize, ConfigSchema)]
    #[serde(default)]
    struct Inner {
        offset: i64,
        more: BTreeMap<String, u16>,
    }

    #[test]
    fn a_table_is_described_as_serde_reads_it() {
        let schema = read::<Everything>();
        let of = |key: &str| &schema["properties"][key];
        assert_eq!(*of("max-age"), json!({ "type": "integer", "minimum": 0, "maximum": 255 }));
        assert_eq!(*of("type"), json!({ "type": "string", "enum": ["red", "dark-blue"] }));
        assert_eq!(of("state"), &Value::Null);
        assert_eq!(of("wait")["type"], "string");
        assert_eq!(
            *of("greeting"),
            json!({ "type": "string", "description": "Says \"hello\" to everybody." })
        );
        assert_eq!(*of("unknown"), json!({}), "a type without a schema may be anything");
        let inner = &of("inner")["items"]["properties"];
        assert_eq!(inner["offset"]["minimum"], i64::MIN);
        assert_eq!(inner["more"]["additionalProperties"]["maximum"], 65535);
        assert_eq!(of("headers")["type"], "object");
        assert_eq!(schema["required"], json!(["type", "unknown", "inner"]));
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(of("inner")["items"]["required"], Value::Null, "all of it has defaults");
    }

    #[test]
    fn a_manifest_has_just_the_length_that_was_counted() {
        const MANIFEST: Manifest = Manifest {
            name: "a \"b\" \\ \u{1} é",
            version: "1.2.3",
            description: "",
            config: Everything::SHAPE,
            config_description: Everything::DESCRIPTION,
        };
        const BYTES: [u8; MANIFEST.length()] = MANIFEST.json();
        let read: Value = serde_json::from_slice(&BYTES).expect("JSON");
        assert_eq!(read["name"], MANIFEST.name);
        assert_eq!(read["config"], self::read::<Everything>());
    }
}
