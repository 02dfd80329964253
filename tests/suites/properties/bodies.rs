//! Bodies: the same whatever the pieces, and the way out of a framing is the way into it.

use super::{
    checks::{self, body},
    config,
    messages::{chunked, fields},
};
use proptest::{collection::vec, prelude::*};
use vers_gateway::http1::{BodyLength, write_chunk_size, write_last_chunk};

proptest! {
    #![proptest_config(config())]

    #[test]
    fn chunks_are_the_same_in_any_pieces(bytes in chunked(), pieces in vec(1_u8..30, 0..5)) {
        body::in_pieces(BodyLength::Chunked, &bytes, &pieces);
    }

    #[test]
    fn no_bytes_harm_the_decoder(input in vec(any::<u8>(), 0..200)) {
        body::check(&input);
    }

    #[test]
    fn bodies_of_known_length_are_the_same_in_any_pieces(
        bytes in vec(any::<u8>(), 0..100),
        length in prop_oneof![
            Just(BodyLength::None), Just(BodyLength::UntilClose), (1_u64..120).prop_map(BodyLength::Exact)
        ],
        pieces in vec(1_u8..30, 0..5),
    ) {
        body::in_pieces(length, &bytes, &pieces);
    }

    #[test]
    fn what_is_written_in_chunks_is_read_again(
        chunks in vec(vec(any::<u8>(), 1..60), 0..6),
        trailers in fields(3),
        pieces in vec(1_u8..30, 0..5),
    ) {
        let fields = trailers.fields();
        let mut text = Vec::new();
        for chunk in &chunks {
            write_chunk_size(chunk.len(), &mut text);
            text.extend_from_slice(chunk);
            text.extend_from_slice(b"\r\n");
        }
        write_last_chunk(Some(&fields).filter(|fields| !fields.is_empty()), &mut text);
        let read = body::decode(BodyLength::Chunked, &text, &pieces).expect("what we write can be read");
        prop_assert_eq!(read.data, chunks.concat());
        prop_assert_eq!((read.consumed, read.ended), (text.len(), true));
        prop_assert_eq!(read.trailers.unwrap_or_default(), trailers.0);
    }

    #[test]
    fn what_follows_a_body_is_left_alone(bytes in chunked(), behind in vec(any::<u8>(), 0..30)) {
        let Ok(alone) = body::decode(BodyLength::Chunked, &bytes, &[]) else { return Ok(()) };
        if alone.ended {
            let end = alone.consumed;
            let text = [&bytes[..end], &behind].concat();
            let followed = body::decode(BodyLength::Chunked, &text, &[]);
            prop_assert_eq!(followed.ok(), Some(alone), "{}", checks::shown(&text));
        }
    }
}
