//! Decodes response bodies incrementally.

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::net::trailers::{self, Trailers};

use super::framing::{Framing, Malformed};

/// Bytes of a chunk's size line with its extensions, and of a trailer line, at most.
const MAX_LINE_BYTES: usize = 4 * 1024;

/// Bytes of all trailers of a body, at most.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// Trailer fields of a body, at most.
const MAX_TRAILER_FIELDS: usize = 100;

/// Separates a body from the bytes of its connection.
#[derive(Debug)]
pub struct BodyDecoder {
    state: BodyDecoderState,
    trailers: Trailers,
}

#[derive(Debug)]
enum BodyDecoderState {
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    /// The trailer lines so far.
    Trailers(Vec<u8>),
    UntilClose,
    Done,
}

/// The result of one decoding step.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A part of the body; never empty.
    Data(Bytes),
    /// The buffer holds nothing that can be decoded.
    NeedMore,
    /// The body is complete.
    End,
}

impl BodyDecoder {
    /// A decoder for a body with `framing`.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None => BodyDecoderState::Done,
            Framing::Length(length) => BodyDecoderState::Length(length),
            Framing::Chunked => BodyDecoderState::ChunkSize,
            Framing::UntilClose => BodyDecoderState::UntilClose,
        };
        Self { state, trailers: None }
    }

    /// Bytes of the body that are left, where the length is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            BodyDecoderState::Length(left) => Some(left),
            BodyDecoderState::Done => Some(0),
            _ => None,
        }
    }

    /// Removes the next part of the body from `buf`.
    ///
    /// # Errors
    /// [`Malformed`] for invalid chunks or trailers.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, Malformed> {
        loop {
            match &mut self.state {
                BodyDecoderState::Done => return Ok(Decoded::End),
                BodyDecoderState::Length(0) => self.state = BodyDecoderState::Done,
                BodyDecoderState::Length(left) | BodyDecoderState::ChunkData(left) if *left > 0 => {
                    let Some(data) = take_up_to(buf, *left) else { return Ok(Decoded::NeedMore) };
                    *left -= data.len() as u64;
                    return Ok(Decoded::Data(data));
                }
                BodyDecoderState::UntilClose => {
                    let data = take_up_to(buf, u64::MAX);
                    return Ok(data.map_or(Decoded::NeedMore, Decoded::Data));
                }
                BodyDecoderState::Length(_) | BodyDecoderState::ChunkData(_) => {
                    self.state = BodyDecoderState::ChunkEnd;
                }
                // httparse accepts a line without a digit as zero.
                BodyDecoderState::ChunkSize
                    if buf.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) =>
                {
                    return Err(Malformed);
                }
                BodyDecoderState::ChunkSize => match httparse::parse_chunk_size(buf) {
                    Ok(httparse::Status::Complete((line, size))) if line <= MAX_LINE_BYTES => {
                        buf.advance(line);
                        self.state = if size == 0 {
                            BodyDecoderState::Trailers(Vec::new())
                        } else {
                            BodyDecoderState::ChunkData(size)
                        };
                    }
                    Ok(httparse::Status::Partial) if buf.len() < MAX_LINE_BYTES => {
                        return Ok(Decoded::NeedMore);
                    }
                    _ => return Err(Malformed),
                },
                BodyDecoderState::ChunkEnd => match buf.get(..2) {
                    Some(b"\r\n") => {
                        buf.advance(2);
                        self.state = BodyDecoderState::ChunkSize;
                    }
                    Some(_) => return Err(Malformed),
                    None => return Ok(Decoded::NeedMore),
                },
                BodyDecoderState::Trailers(lines) => match take_line(buf)? {
                    Some(line) if line.len() == 2 => {
                        self.trailers = parse_trailers(lines)?;
                        self.state = BodyDecoderState::Done;
                    }
                    Some(line) if lines.len() + line.len() > MAX_TRAILER_BYTES => {
                        return Err(Malformed);
                    }
                    Some(line) => lines.extend_from_slice(&line),
                    None => return Ok(Decoded::NeedMore),
                },
            }
        }
    }

    /// Takes the trailers of a complete body, without forbidden fields.
    pub fn take_trailers(&mut self) -> Trailers {
        self.trailers.take()
    }

    /// Whether the body is complete if the connection closes now.
    pub fn is_complete_at_close(&self) -> bool {
        matches!(
            self.state,
            BodyDecoderState::UntilClose | BodyDecoderState::Done | BodyDecoderState::Length(0)
        )
    }
}

fn take_up_to(buf: &mut BytesMut, max_bytes: u64) -> Option<Bytes> {
    if buf.is_empty() {
        return None;
    }
    let length = buf.len().min(usize::try_from(max_bytes).unwrap_or(usize::MAX));
    Some(buf.split_to(length).freeze())
}

/// Removes one trailer line from `buf`, with its end of line.
fn take_line(buf: &mut BytesMut) -> Result<Option<BytesMut>, Malformed> {
    match buf.iter().position(|&byte| byte == b'\n') {
        Some(end) if end > 0 && end < MAX_LINE_BYTES && buf[end - 1] == b'\r' => {
            Ok(Some(buf.split_to(end + 1)))
        }
        Some(_) => Err(Malformed),
        None if buf.len() < MAX_LINE_BYTES => Ok(None),
        None => Err(Malformed),
    }
}

/// Parses complete trailer lines.
fn parse_trailers(lines: &mut Vec<u8>) -> Result<Trailers, Malformed> {
    if lines.is_empty() {
        return Ok(None);
    }
    lines.extend_from_slice(b"\r\n");
    let mut headers = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let parsed = httparse::parse_headers(lines, &mut headers).map_err(|_| Malformed)?;
    let httparse::Status::Complete((_, fields)) = parsed else { return Err(Malformed) };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Malformed)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Malformed)?;
        trailers.append(name, value);
    }
    Ok(trailers::strip_forbidden(trailers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `wire` in steps of `step` bytes; returns the body, whether it ended, and the rest.
    fn decode_in_steps(
        framing: Framing,
        wire: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, bool, Vec<u8>), Malformed> {
        let mut decoder = BodyDecoder::new(framing);
        let (mut buf, mut body) = (BytesMut::new(), Vec::new());
        let mut steps = wire.chunks(step.max(1));
        loop {
            match decoder.decode(&mut buf)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::End => {
                    buf.extend(steps.flatten());
                    return Ok((body, true, buf.to_vec()));
                }
                Decoded::NeedMore => match steps.next() {
                    Some(bytes) => buf.extend_from_slice(bytes),
                    None => return Ok((body, decoder.is_complete_at_close(), Vec::new())),
                },
            }
        }
    }

    proptest! {
        #[test]
        fn chunked_body_decodes_at_every_split(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8), step in 1usize..64
        ) {
            let mut wire = BytesMut::new();
            chunks.iter().for_each(|chunk| crate::net::h1::write_chunk(&mut wire, chunk));
            wire.extend_from_slice(crate::net::h1::LAST_CHUNK);
            wire.extend_from_slice(b"NEXT");
            let (body, ended, rest) = decode_in_steps(Framing::Chunked, &wire, step).expect("valid");
            prop_assert!(ended);
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(rest, b"NEXT");
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(wire in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..9) {
            for framing in [Framing::Chunked, Framing::Length(50), Framing::UntilClose, Framing::None] {
                let _ = decode_in_steps(framing, &wire, step);
            }
        }
    }

    #[test]
    fn truncated_body_is_not_complete() {
        assert_eq!(
            decode_in_steps(Framing::Length(5), b"abc", 9),
            Ok((b"abc".to_vec(), false, vec![]))
        );
        assert_eq!(
            decode_in_steps(Framing::Length(3), b"abcd", 9),
            Ok((b"abc".to_vec(), true, b"d".to_vec()))
        );
        assert_eq!(
            decode_in_steps(Framing::Chunked, b"3\r\nabc\r\n", 1),
            Ok((b"abc".to_vec(), false, vec![]))
        );
        assert_eq!(
            decode_in_steps(Framing::UntilClose, b"abc", 2),
            Ok((b"abc".to_vec(), true, vec![]))
        );
    }

    #[test]
    fn invalid_chunks_are_malformed() {
        for wire in [
            &b"x\r\n"[..],
            b"\r\n",
            b";x\r\n",
            b"3\r\nabcd\r\n",
            b"-1\r\n",
            b"ffffffffffffffffff\r\n",
            b"0\r\nA: b\n\r\n",
        ] {
            assert_eq!(
                decode_in_steps(Framing::Chunked, wire, 64).err(),
                Some(Malformed),
                "{wire:?}"
            );
        }
        let endless = [b"1;".as_slice(), &vec![b'x'; MAX_LINE_BYTES]].concat();
        assert_eq!(decode_in_steps(Framing::Chunked, &endless, 1024).err(), Some(Malformed));
        // The limit does not depend on how the bytes arrive.
        let long = vec![b'x'; MAX_LINE_BYTES];
        for wire in [
            [b"1;", &*long, b"\r\na\r\n0\r\n\r\n"].concat(),
            [b"0\r\nA: ", &*long, b"\r\n\r\n"].concat(),
        ] {
            for step in [7, 1024, wire.len()] {
                assert_eq!(
                    decode_in_steps(Framing::Chunked, &wire, step).err(),
                    Some(Malformed),
                    "{step}"
                );
            }
        }
    }

    #[test]
    fn trailers_are_bounded() {
        let wire = b"1\r\na\r\n0\r\nX: y\r\nZ: w\r\n\r\nrest";
        assert_eq!(
            decode_in_steps(Framing::Chunked, wire, 3),
            Ok((b"a".to_vec(), true, b"rest".to_vec()))
        );
        let many = [b"0\r\n".as_slice(), &b"A: bbbbbbbbbbbb\r\n".repeat(2_000)].concat();
        assert_eq!(decode_in_steps(Framing::Chunked, &many, 1024).err(), Some(Malformed));
        let fields = [b"0\r\n".as_slice(), &b"A: b\r\n".repeat(101), b"\r\n"].concat();
        assert_eq!(decode_in_steps(Framing::Chunked, &fields, 1024).err(), Some(Malformed));
        let odd = b"0\r\nno colon\r\n\r\n";
        assert_eq!(decode_in_steps(Framing::Chunked, odd, 1024).err(), Some(Malformed));
    }

    #[test]
    fn trailers_decode_at_every_split() {
        let wire = b"1\r\na\r\n0\r\nX-Sum: y\r\nx-sum: z\r\nContent-Length: 9\r\n\r\n";
        for step in 1..wire.len() {
            let mut decoder = BodyDecoder::new(Framing::Chunked);
            let mut buf = BytesMut::new();
            for bytes in wire.chunks(step) {
                buf.extend_from_slice(bytes);
                while let Decoded::Data(_) = decoder.decode(&mut buf).expect("valid") {}
            }
            assert_eq!(decoder.decode(&mut buf), Ok(Decoded::End));
            let trailers = decoder.take_trailers().expect("some");
            let all: Vec<_> = trailers.get_all("x-sum").iter().collect();
            assert_eq!((all.len(), trailers.len()), (2, 2), "{trailers:?}");
            assert_eq!(decoder.take_trailers(), None);
        }
    }
}
