//! Values of flags in Mesos' notation: durations and sizes.

use std::time::Duration;

/// Units of a duration, largest first; the names are those that Mesos prints.
const DURATIONS: [(&str, u64); 8] = [
    ("weeks", 604_800_000_000_000),
    ("days", 86_400_000_000_000),
    ("hrs", 3_600_000_000_000),
    ("mins", 60_000_000_000),
    ("secs", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of a size, powers of 1024.
const SIZES: [(&str, u64); 5] = [
    ("TB", 1 << 40),
    ("GB", 1 << 30),
    ("MB", 1 << 20),
    ("KB", 1 << 10),
    ("B", 1),
];

/// Reads a duration such as `15secs`, `1.5mins`, `10ms`.
///
/// # Errors
/// A sentence that says what a duration looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "{text:?} is not a duration such as 15secs (ns, us, ms, secs, mins, hrs, days, weeks)"
        )
    };
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let (_, nanoseconds) = DURATIONS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(wrong)?;
    Duration::try_from_secs_f64(number * *nanoseconds as f64 / 1e9).map_err(|_| wrong())
}

/// Prints a duration with the largest unit that divides it evenly: `60 s` is `1mins`.
pub fn print_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let (name, unit) = DURATIONS
        .iter()
        .find(|(_, unit)| {
            nanoseconds >= u128::from(*unit) && nanoseconds.is_multiple_of(u128::from(*unit))
        })
        .copied()
        .unwrap_or(("ns", 1));
    format!("{}{name}", nanoseconds / u128::from(unit))
}

/// Reads a size such as `2GB`.
///
/// # Errors
/// A sentence that says what a size looks like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size such as 2GB (B, KB, MB, GB, TB)");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, bytes) = SIZES
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(wrong)?;
    number.checked_mul(*bytes).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_in_mesos() {
        for (text, printed) in [
            ("15secs", "15secs"),
            ("60secs", "1mins"),
            ("1.5mins", "90secs"),
            ("7days", "1weeks"),
            ("0ns", "0ns"),
            ("250ms", "250ms"),
        ] {
            assert_eq!(print_duration(parse_duration(text).unwrap()), printed);
        }
        for wrong in ["", "15", "secs", "-1secs", "15 secs", "1e9weeks"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_size("2GB"), Ok(2 << 30));
        assert!(parse_size("99999999999TB").is_err());
        assert!(parse_size("2G").is_err());
    }
}
