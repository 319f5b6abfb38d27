//! Numbers as people read them.

use super::result::Unit;

/// A value of a unit, with three digits and a fitting prefix.
pub(crate) fn value(it: f64, unit: Unit) -> String {
    if !it.is_finite() {
        return "-".to_owned();
    }
    match unit {
        Unit::Seconds => seconds(it),
        Unit::Bytes => bytes(it),
        Unit::PerSecond => format!("{}/s", number(it)),
        Unit::Count => number(it),
    }
}

fn seconds(it: f64) -> String {
    let (scale, name) = match it.abs() {
        0.0 => (1.0, "s"),
        it if it < 999.5e-9 => (1e9, "ns"),
        it if it < 999.5e-6 => (1e6, "us"),
        it if it < 999.5e-3 => (1e3, "ms"),
        _ => (1.0, "s"),
    };
    format!("{} {name}", digits(it * scale))
}

/// Bytes in units of 1000.
pub(crate) fn bytes(it: f64) -> String {
    let (scale, name) = match it.abs() {
        it if it < 1e3 => (1.0, "B"),
        it if it < 1e6 => (1e-3, "kB"),
        it if it < 1e9 => (1e-6, "MB"),
        _ => (1e-9, "GB"),
    };
    format!("{} {name}", digits(it * scale))
}

/// A number; thousands are set apart.
pub(crate) fn number(it: f64) -> String {
    if it.abs() < 1000.0 {
        return digits(it);
    }
    if it.abs() >= 1e15 {
        return format!("{it:.2e}");
    }
    let text = format!("{:.0}", it.abs());
    let mut grouped = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if it < 0.0 {
        format!("-{grouped}")
    } else {
        grouped
    }
}

/// Three digits that count, no zeros behind.
pub(crate) fn digits(it: f64) -> String {
    if it == 0.0 {
        return "0".to_owned();
    }
    let decimals = match it.abs() {
        it if it >= 99.95 => 0,
        it if it >= 9.995 => 1,
        it if it >= 0.9995 => 2,
        it if it >= 0.001 => 3,
        _ => return format!("{it:.1e}"),
    };
    let text = format!("{it:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_three_digits_and_a_unit() {
        let seconds = |it| value(it, Unit::Seconds);
        assert_eq!(seconds(3.217e-7), "322 ns");
        assert_eq!(seconds(0.0123), "12.3 ms");
        assert_eq!(seconds(0.0), "0 s");
        assert_eq!(value(4400.0, Unit::Bytes), "4.4 kB");
        assert_eq!(value(1_234_567.0, Unit::Count), "1,234,567");
        assert_eq!(value(5000.4, Unit::PerSecond), "5,000/s");
        assert_eq!(value(f64::NAN, Unit::Count), "-");
        assert_eq!(digits(0.0304), "0.03");
    }
}
