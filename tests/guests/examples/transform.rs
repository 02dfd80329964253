//! Transforms bodies of requests and of answers as the header `x-transform` of either asks for: `upper`, `hold` (all of it comes
//! at the end), `twice`, `burst` (ten times 1 MiB for each piece, a part at a time), `endless` (more and more of nothing), `refuse` (an error behind the first piece), `panic`, `spin`, `flood` (much for each
//! piece), `end` (an error at the end), `same`. Without the header, and without `how` in its settings, bodies are of no interest.

use vers_plugin::prelude::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct It {
    /// What is written behind each body.
    #[serde(default)]
    tail: String,
    /// Whether it fails before there is anything.
    #[serde(default)]
    fails: bool,
    /// How those are transformed that do not ask for anything.
    how: Option<String>,
}

impl RequestBodyTransform for It {
    fn begin(&self, req: &mut Request) -> Option<Box<dyn Transform>> {
        req.set_header("x-begun", "1");
        assert!(!self.fails, "told to fail at the beginning");
        let how = req.header_str("x-transform").or_else(|| self.how.clone())?;
        req.set_header("x-transformed", &how);
        Some(self.body(how))
    }
}

impl ResponseBodyTransform for It {
    fn begin(&self, resp: &mut Response) -> Option<Box<dyn Transform>> {
        assert!(!self.fails, "told to fail at the beginning");
        let how = resp.header_str("x-transform").or_else(|| self.how.clone())?;
        resp.set_header("x-transformed", &how);
        Some(self.body(how))
    }
}

impl It {
    fn body(&self, how: String) -> Box<dyn Transform> {
        Box::new(Body { how, tail: self.tail.clone(), held: Vec::new(), pieces: 0, left: 0 })
    }
}

struct Body {
    how: String,
    tail: String,
    held: Vec<u8>,
    pieces: u32,
    left: u32,
}

impl Transform for Body {
    fn push(&mut self, chunk: Vec<u8>) -> Result<Vec<u8>, String> {
        assert!(!chunk.is_empty(), "nothing is no piece");
        self.pieces += 1;
        Ok(match self.how.as_str() {
            "upper" => chunk.to_ascii_uppercase(),
            "twice" => [chunk.as_slice(), chunk.as_slice()].concat(),
            "hold" => {
                self.held.extend(chunk);
                Vec::new()
            }
            "refuse" if self.pieces > 1 => return Err("told to refuse".into()),
            "panic" if self.pieces > 1 => panic!("told to panic in the middle"),
            "spin" if self.pieces > 1 => loop {
                std::hint::black_box(self.pieces);
            },
            "burst" => {
                self.left = 10;
                Vec::new()
            }
            "flood" => vec![b'x'; 2 << 20],
            _ => chunk,
        })
    }

    fn more(&mut self) -> Result<Option<Vec<u8>>, String> {
        if self.how == "endless" {
            return Ok(Some(Vec::new()));
        }
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        Ok(Some(vec![b'0' + left as u8; 1 << 20]))
    }

    fn finish(&mut self) -> Result<Vec<u8>, String> {
        if self.how == "end" {
            return Err("told to fail at the end".into());
        }
        let mut rest = std::mem::take(&mut self.held);
        rest.extend(self.tail.as_bytes());
        Ok(rest)
    }
}
vers_plugin::export!(It: request_body_transform, response_body_transform);
