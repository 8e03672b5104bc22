//! Which form a payload has, told by its first bytes alone. Exact, because `schemas/events.proto` uses no field whose first byte
//! is white space, `{` or zero (a test reads the schema and says so).

/// A payload without its framing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form<'a> {
    Json(&'a [u8]),
    Protobuf(&'a [u8]),
}

/// First byte of a payload framed for a Schema Registry; the schema's id follows in four bytes.
const MAGIC: u8 = 0;
/// Deepest nesting of a message inside its schema.
const MAX_INDEXES: u64 = 16;

/// Takes off a Schema Registry's framing, where there is one. The id in it is not looked up: the role of the topic says which
/// message it is.
pub(super) fn open(payload: &[u8]) -> Result<Form<'_>, String> {
    match payload.first() {
        None => Err("the payload is empty; send a JSON object or a protobuf message".into()),
        Some(&MAGIC) => framed(payload.get(5..).ok_or("a schema registry frame of less than 5 bytes; send the whole message")?),
        Some(_) if is_json(payload) => Ok(Form::Json(payload)),
        Some(_) => Ok(Form::Protobuf(payload)),
    }
}

fn framed(body: &[u8]) -> Result<Form<'_>, String> {
    if is_json(body) { Ok(Form::Json(body)) } else { skip_indexes(body).map(Form::Protobuf) }
}

fn is_json(bytes: &[u8]) -> bool {
    bytes.iter().find(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r')) == Some(&b'{')
}

/// The path of the message in its schema: a count and as many numbers, all zigzag; a single 0 stands for `[0]`.
fn skip_indexes(mut body: &[u8]) -> Result<&[u8], String> {
    let broken =
        || "the message indexes of a schema registry frame are broken; send the frame as the serializer made it".to_string();
    let count = zigzag(prost::encoding::decode_varint(&mut body).map_err(|_| broken())?);
    if !(0..=MAX_INDEXES as i64).contains(&count) {
        return Err(broken());
    }
    for _ in 0..count {
        prost::encoding::decode_varint(&mut body).map_err(|_| broken())?;
    }
    Ok(body)
}

fn zigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_decide() {
        assert_eq!(open(b" \n{}"), Ok(Form::Json(b" \n{}")));
        assert_eq!(open(b"\x12\x01a"), Ok(Form::Protobuf(b"\x12\x01a")));
        assert_eq!(open(b"\x00\x00\x00\x00\x07{}"), Ok(Form::Json(b"{}")));
        assert_eq!(open(b"\x00\x00\x00\x00\x07\x00\x12\x01a"), Ok(Form::Protobuf(b"\x12\x01a")), "a single 0 stands for [0]");
        assert_eq!(open(b"\x00\x00\x00\x00\x07\x04\x02\x06\x12\x01a"), Ok(Form::Protobuf(b"\x12\x01a")), "the path [1, 3]");
        assert!(open(b"").is_err());
        assert!(open(b"\x00\x00\x00").is_err());
        assert!(open(b"\x00\x00\x00\x00\x07").is_err());
        assert!(open(b"\x00\x00\x00\x00\x07\x03\x02").is_err(), "a negative count");
    }
}
