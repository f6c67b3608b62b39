//! Sizes as people type and read them, always binary.

use std::fmt;

use serde::{Deserializer, de};

use super::{GIB, KIB, MIB, TIB};

/// Units by their letter, the largest first.
const UNITS: [(char, u64); 4] = [('T', TIB), ('G', GIB), ('M', MIB), ('K', KIB)];

/// Reads a size in bytes: `1024`, `512B`, `8MiB`, `8M`, `1.5GiB`, `5 TiB`, in any case.
///
/// `8MB` is 8 MiB: `aws s3` reads it so, and a size that is 5% off would silently shift every part.
/// Units end at TiB; a fraction must come out as whole bytes.
///
/// # Errors
/// One line: what is wrong, and an example.
///
/// ```
/// use brigade::limits::{MIB, parse_size};
///
/// assert_eq!(parse_size("8MiB"), Ok(8 * MIB));
/// assert_eq!(parse_size("8MB"), Ok(8 * MIB));
/// assert!(parse_size("8 parsecs").unwrap_err().contains("for example 8MiB"));
/// ```
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = |what: &str| Err(format!("{text:?} is not a size: {what}; write for example 8MiB"));
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    if number.is_empty() {
        return wrong("it does not begin with a number");
    }
    let Some(unit_bytes) = unit_bytes(unit.trim_start()) else {
        return wrong("the unit is none of B, KiB, MiB, GiB, TiB");
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // Nine digits of fraction are more than anyone types, and keep the arithmetic exact.
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return wrong("the number cannot be read");
    }
    let (Ok(whole), Ok(fraction_digits)) = (whole.parse::<u64>(), fraction.parse::<u64>()) else {
        return wrong("the number is too large");
    };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(u32::MAX));
    let scaled = (u128::from(whole) * scale + u128::from(fraction_digits)) * u128::from(unit_bytes);
    if !scaled.is_multiple_of(scale) {
        return wrong("it is not a whole number of bytes");
    }
    match u64::try_from(scaled / scale) {
        Ok(size_bytes) => Ok(size_bytes),
        Err(_) => wrong("the number is too large"),
    }
}

/// A size for people: `"8.0 MiB"`, one decimal, in the largest unit that fits; below 1 KiB in bytes,
/// `"512 B"`.
pub fn format_size(size_bytes: u64) -> String {
    match UNITS.into_iter().find(|(_, unit_bytes)| size_bytes >= *unit_bytes) {
        // Rounding half a unit up could print "1024.0 KiB"; the cut is never wrong by more than 0.1.
        Some((letter, unit_bytes)) => {
            let tenths = u128::from(size_bytes) * 10 / u128::from(unit_bytes);
            format!("{}.{} {letter}iB", tenths / 10, tenths % 10)
        }
        None => format!("{size_bytes} B"),
    }
}

/// `""`, `"B"`, or a letter of [`UNITS`] followed by nothing, `B` or `iB`.
fn unit_bytes(unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_uppercase();
    let mut chars = unit.chars();
    let Some(letter) = chars.next() else { return Some(1) };
    match (letter, chars.as_str()) {
        ('B', "") => Some(1),
        (letter, "" | "B" | "IB") => {
            UNITS.into_iter().find(|(known, _)| *known == letter).map(|(_, unit_bytes)| unit_bytes)
        }
        _ => None,
    }
}

/// For serde: an integer in bytes, or a string for [`parse_size`].
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct SizeVisitor;

    impl de::Visitor<'_> for SizeVisitor {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size: an integer in bytes, or a string such as \"64MiB\"")
        }

        fn visit_u64<E: de::Error>(self, size_bytes: u64) -> Result<u64, E> {
            Ok(size_bytes)
        }

        fn visit_i64<E: de::Error>(self, size_bytes: i64) -> Result<u64, E> {
            u64::try_from(size_bytes)
                .map_err(|_| E::invalid_value(de::Unexpected::Signed(size_bytes), &self))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            parse_size(text).map_err(E::custom)
        }
    }

    deserializer.deserialize_any(SizeVisitor)
}

/// How much of how much: `3 MiB of 8 MiB`.
pub(crate) fn of_all(done_bytes: u64, total_bytes: u64) -> String {
    format!("{} of {}", format_size(done_bytes), format_size(total_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_as_people_type_them() {
        for (text, expected) in [
            ("0", 0),
            ("1024", KIB),
            ("512B", 512),
            ("8MiB", 8 * MIB),
            ("8mib", 8 * MIB),
            ("8M", 8 * MIB),
            ("8 MB", 8 * MIB),
            (" 1GiB ", GIB),
            ("5TiB", 5 * TIB),
            ("1.5GiB", GIB + GIB / 2),
            ("0.5k", 512),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_says_why_and_shows_one() {
        for (text, why) in [
            ("", "number"),
            ("MiB", "number"),
            ("-1", "number"),
            ("8 parsecs", "unit"),
            ("8MiBs", "unit"),
            ("8PiB", "unit"),
            ("1.2.3M", "cannot be read"),
            (".5M", "cannot be read"),
            ("5.M", "cannot be read"),
            ("0.3B", "whole number"),
            ("99999999999TiB", "too large"),
            ("99999999999999999999999", "too large"),
        ] {
            let message = parse_size(text).unwrap_err();
            assert!(message.contains(why) && message.ends_with("8MiB"), "{text}: {message}");
        }
    }

    #[test]
    fn sizes_as_people_read_them() {
        for (size_bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (KIB, "1.0 KiB"),
            (8 * MIB, "8.0 MiB"),
            (MIB - 1, "1023.9 KiB"),
            (5 * TIB + TIB / 2, "5.5 TiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(format_size(size_bytes), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_within_a_tenth(size_bytes in 0..48 * TIB) {
            // A tenth of a unit is not always whole bytes; what parses is close, and never larger.
            if let Ok(read) = parse_size(&format_size(size_bytes)) {
                prop_assert!(read <= size_bytes && size_bytes - read <= size_bytes / 10);
            }
        }

        #[test]
        fn no_text_makes_parsing_panic(text: String) {
            let _ = parse_size(&text);
        }
    }
}
