//! The entity tag of a feed: a client that has the answer already is told so in a few bytes.
//!
//! What must stay true: two answers of one tag differ in nothing but the id of their request. The tag is weak for that reason, and
//! made of the answer itself, so whatever the answer depends on is in it.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::views::Body;
use crate::shim::guard::RequestId;

/// The answer under its tag, or 304 when the client names that tag. The id of the request stands first in `body`.
pub fn answer(headers: &HeaderMap, epoch: u64, id: &RequestId, body: Body) -> Response {
    let tag = format!("W/\"{epoch}-{:016x}\"", xxhash_rust::xxh3::xxh3_64(after_id(body.bytes(), id)));
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|list| names(list, &tag));
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { body.into_response() };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_str(&tag).expect("digits are visible ascii"));
    // To be kept by the client alone, and asked about each time.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response
}

fn after_id<'a>(body: &'a [u8], id: &RequestId) -> &'a [u8] {
    let quoted = serde_json::to_string(&id.0).expect("text is JSON").len();
    &body[br#"{"request_id":"#.len() + quoted..]
}

/// Whether a list of `If-None-Match` names the tag. Weak comparison: with or without `W/`.
fn names(list: &HeaderValue, tag: &str) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_string();
    let tag = bare(tag);
    list.to_str().is_ok_and(|list| list.trim() == "*" || list.split(',').any(|named| bare(named) == tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_tags_is_compared_weakly() {
        let cases =
            [("*", true), ("W/\"7-0a\"", true), ("\"x\", \"7-0a\"", true), ("\"7-0b\"", false), ("7-0a", false), ("", false)];
        for (list, known) in cases {
            assert_eq!(names(&HeaderValue::from_static(list), "W/\"7-0a\""), known, "{list}");
        }
    }
}
