//! Paths as libprocess had them.
//!
//! Every route belongs to an actor and is reachable as `/<actor>/<route>` and, for the main
//! actor, as `/<route>`. Empty segments do not count, escapes are not decoded (but in the
//! actor's own name), and a path with `..` does not exist.

/// The route of a request: its segments below the main actor, joined by `/`, without a
/// slash at either end. `None` for a path that no route can have.
pub fn route(path: &str, actors: &[&str]) -> Option<String> {
    if path.contains("/..") {
        return None;
    }
    let segments: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).collect();
    let rest = match segments.split_first() {
        Some((first, rest)) if actors.contains(first) => rest,
        _ => &segments,
    };
    Some(rest.join("/"))
}

/// The longest of `known` that is `route` or a parent of it, with what is left.
pub fn longest<'a, 'r>(route: &'r str, known: &[&'a str]) -> Option<(&'a str, &'r str)> {
    known
        .iter()
        .filter_map(|candidate| {
            let rest = route.strip_prefix(candidate)?;
            match rest.strip_prefix('/') {
                Some(rest) => Some((*candidate, rest)),
                None => rest.is_empty().then_some((*candidate, "")),
            }
        })
        .max_by_key(|(candidate, _)| candidate.len())
}

/// The first value of a query parameter, decoded.
pub fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    pairs(query?)
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

/// The pairs of a query or a form, decoded.
pub fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    let decode = |part: &str| {
        let spaced = part.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced)
            .decode_utf8_lossy()
            .into_owned()
    };
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(move |pair| match pair.split_once('=') {
            Some((key, value)) => (decode(key), decode(value)),
            None => (decode(pair), String::new()),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTORS: &[&str] = &["slave(1)", "slave%281%29"];

    #[test]
    fn paths_lose_actor_and_empty_segments() {
        for (path, expected) in [
            ("/state", Some("state")),
            ("//state/", Some("state")),
            ("/slave(1)/state", Some("state")),
            ("/slave%281%29/state", Some("state")),
            ("/api/v1/", Some("api/v1")),
            ("/st%61te", Some("st%61te")),
            ("/state/../flags", None),
            ("/", Some("")),
        ] {
            assert_eq!(route(path, ACTORS).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_longest_route_wins() {
        let known = ["quota", "api/v1", "api/v1/scheduler"];
        assert_eq!(longest("quota/a/b", &known), Some(("quota", "a/b")));
        assert_eq!(
            longest("api/v1/scheduler", &known),
            Some(("api/v1/scheduler", ""))
        );
        assert_eq!(longest("api/v1/other", &known), Some(("api/v1", "other")));
        assert_eq!(longest("quotas", &known), None);
        assert_eq!(longest("state.json", &["state"]), None);
    }

    #[test]
    fn parameters_are_decoded() {
        let query = Some("a=x%20y+z&b&a=2");
        assert_eq!(parameter(query, "a").as_deref(), Some("x y z"));
        assert_eq!(parameter(query, "b").as_deref(), Some(""));
        assert_eq!(parameter(query, "c"), None);
    }
}
