//! How messages of our gRPC services travel: as protobuf, with small buffers.

use bytes::Buf;
use std::marker::PhantomData;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

/// Bytes that a buffer begins with, and grows by at least. A master has a stream for every agent,
/// and most of them say nothing for most of the time; the library's own 8 KiB, twice for each
/// stream, would be most of what an idle agent costs.
const BEGIN: usize = 256;
/// Encoded bytes that are handed on at once at most, as with the library's own settings.
const YIELD: usize = 32 * 1024;

/// Encodes `T` and decodes `U`.
#[derive(Debug, Clone)]
pub struct SmallBuffers<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for SmallBuffers<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for SmallBuffers<T, U>
where
    T: prost::Message + Send + 'static,
    U: prost::Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Copying<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BEGIN, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        Copying(PhantomData)
    }
}

/// Decodes `U` so that nothing of it refers to the buffer of its stream: a payload of a few bytes
/// that is kept would keep all of the buffer, and the stream would need another one.
#[derive(Debug, Clone, Copy)]
pub struct Copying<U>(PhantomData<U>);

impl<U: prost::Message + Default> Decoder for Copying<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let length = source.remaining();
        // The whole message in one piece, as the library receives it; bytes of one that came in
        // several would be shared with their buffer, which costs memory and nothing else.
        let decoded = match source.chunk() {
            whole if whole.len() == length => {
                let decoded = U::decode(whole);
                source.advance(length);
                decoded
            }
            _ => U::decode(source),
        };
        // What the library's own decoder answers.
        decoded
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BEGIN, YIELD)
    }
}
