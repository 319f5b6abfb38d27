//! Paths of errors, put together from the inside out while an error travels up, so that
//! nothing is paid for when there is no error.

/// Puts the name of a field in front of `path`.
pub(crate) fn in_field(path: &mut String, field: &str) {
    if !path.is_empty() && !path.starts_with('[') {
        path.insert(0, '.');
    }
    path.insert_str(0, field);
}

/// Puts the index of an element in front of `path`.
pub(crate) fn in_index(path: &mut String, index: usize) {
    in_field(path, &format!("[{index}]"));
}

/// Puts the key of a map's entry in front of `path`.
pub(crate) fn in_key(path: &mut String, key: &str) {
    in_field(path, &format!("[{key:?}]"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_join_as_they_are_written() {
        let mut path = String::new();
        in_field(&mut path, "value");
        in_key(&mut path, "cpus");
        in_field(&mut path, "limits");
        in_index(&mut path, 1);
        in_field(&mut path, "tasks");
        assert_eq!(path, "tasks[1].limits[\"cpus\"].value");
    }
}
