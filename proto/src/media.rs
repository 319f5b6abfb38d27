//! Media types of requests and answers, compared and negotiated as Mesos does it.

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContentType {
    /// `application/json`
    Json,
    /// `application/x-protobuf`
    Protobuf,
    /// `application/recordio`
    RecordIo,
}

/// Nothing in the `Accept` header is something that can be answered with: 406.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expecting 'Accept' to allow application/json or application/x-protobuf, it allows neither"
)]
pub struct NotAcceptable;

impl ContentType {
    /// As it stands in a header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
            Self::RecordIo => "application/recordio",
        }
    }

    /// The type that a `Content-Type` header names. Compared as an exact string, as Mesos
    /// does: another case or any parameter, a charset too, is not recognised (415).
    #[must_use]
    pub fn from_header(value: &str) -> Option<Self> {
        [Self::Json, Self::Protobuf, Self::RecordIo]
            .into_iter()
            .find(|it| it.as_str() == value)
    }
}

impl std::fmt::Display for ContentType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What to answer with: JSON if the `Accept` header allows it, else protobuf. The order in
/// the header and the size of its q values do not count, only whether they are zero. A
/// missing header allows everything. Several headers are joined by commas beforehand.
///
/// # Errors
/// When the header allows neither.
pub fn negotiate(accept: Option<&str>) -> Result<ContentType, NotAcceptable> {
    [ContentType::Json, ContentType::Protobuf]
        .into_iter()
        .find(|it| accepts(accept, *it))
        .ok_or(NotAcceptable)
}

/// Whether an `Accept` (or `Message-Accept`) header allows `content`. The most specific
/// range that matches decides: `application/json;q=0, */*` does not allow JSON.
#[must_use]
pub fn accepts(accept: Option<&str>, content: ContentType) -> bool {
    let Some(accept) = accept else { return true };
    let mut best: Option<(u8, bool)> = None;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let specificity = match name {
            "*/*" => 0,
            _ if name.eq_ignore_ascii_case("application/*") => 1,
            _ if name.eq_ignore_ascii_case(content.as_str()) => 2,
            _ => continue,
        };
        if best.is_none_or(|(found, _)| found < specificity) {
            best = Some((specificity, !parts.any(is_zero_quality)));
        }
    }
    best.is_some_and(|(_, allowed)| allowed)
}

/// Whether a parameter is `q=0` in one of its spellings. A malformed q does not forbid.
fn is_zero_quality(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else {
        return false;
    };
    name.trim().eq_ignore_ascii_case("q") && value.trim().parse() == Ok(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_is_compared_exactly() {
        for it in [
            ContentType::Json,
            ContentType::Protobuf,
            ContentType::RecordIo,
        ] {
            assert_eq!(ContentType::from_header(it.as_str()), Some(it));
        }
        for other in [
            "application/json; charset=utf-8",
            "Application/JSON",
            " application/json",
            "text/plain",
            "",
        ] {
            assert_eq!(ContentType::from_header(other), None, "{other}");
        }
    }

    #[test]
    fn json_comes_first_whatever_the_header_prefers() {
        for header in [
            None,
            Some("*/*"),
            Some("application/*"),
            Some("application/json"),
            Some("APPLICATION/JSON"),
            Some("application/x-protobuf;q=0.9, application/json;q=0.1"),
            Some("text/html, application/json;q=x"),
        ] {
            assert_eq!(negotiate(header), Ok(ContentType::Json), "{header:?}");
        }
    }

    #[test]
    fn protobuf_when_json_is_not_allowed() {
        for header in [
            "application/x-protobuf",
            "application/x-protobuf;q=0.2, application/json;q=0",
            "*/*, application/json;q=0.000",
            "application/json; charset=utf-8 ; q = 0,application/*",
        ] {
            let found = negotiate(Some(header));
            assert_eq!(found, Ok(ContentType::Protobuf), "{header}");
        }
    }

    #[test]
    fn nothing_acceptable_is_an_error() {
        for header in ["text/html", "", "application/recordio", "*/*;q=0", "text/*"] {
            assert_eq!(negotiate(Some(header)), Err(NotAcceptable), "{header}");
        }
        assert!(accepts(Some("application/recordio"), ContentType::RecordIo));
    }
}
