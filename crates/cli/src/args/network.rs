//! The network that `brigade serve` pretends to be behind, as typed.

use std::time::Duration;

use brigade_store::SlowParts;
use clap::Args;

/// See [`super::ServeArgs`].
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network (docs/NETWORKS.md)")]
pub(crate) struct NetworkArgs {
    /// How long every answer is under way and every connection takes to open, such as 50ms: a round
    /// trip.
    #[arg(long, value_name = "TIME", value_parser = latency)]
    pub(crate) latency: Option<Duration>,

    /// How much longer or shorter each round trip may be, such as 10ms.
    #[arg(long, value_name = "TIME", value_parser = latency, requires = "latency")]
    pub(crate) jitter: Option<Duration>,

    /// What fits through one connection, in each direction: 85MB/s, 80MiB/s or 700Mbit/s.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) bandwidth_per_connection: Option<u64>,

    /// What fits through all connections together, in each direction; they share it evenly.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) bandwidth_total: Option<u64>,

    /// Connections begin slowly and get faster with every round trip, as TCP does.
    #[arg(long, requires = "latency")]
    pub(crate) slow_start: bool,

    /// Requests a second that are served; more are answered with 503 SlowDown.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_rps: Option<u32>,

    /// Some parts and ranges are answered late: 0.1%:5s means one in a thousand, by 5 seconds.
    #[arg(long, value_name = "PERCENT:TIME", value_parser = slow_parts)]
    pub(crate) slow_parts: Option<SlowParts>,

    /// What all chance is drawn from, that of --faults too: the same seed, the same luck.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

/// Units of rates by how they are written, with how many of them make how many bytes. The letter's
/// case tells bits from bytes, so it counts.
const UNITS: [(&str, f64); 12] = [
    ("B/s", 1.0),
    ("kB/s", 1e3),
    ("KB/s", 1e3),
    ("MB/s", 1e6),
    ("GB/s", 1e9),
    ("KiB/s", 1024.0),
    ("MiB/s", 1_048_576.0),
    ("GiB/s", 1_073_741_824.0),
    ("kbit/s", 1e3 / 8.0),
    ("Kbit/s", 1e3 / 8.0),
    ("Mbit/s", 1e6 / 8.0),
    ("Gbit/s", 1e9 / 8.0),
];

/// The lowest rate and one that no network has, in bytes a second.
const RATES: (f64, f64) = (1e3, 1e12);

/// A rate, in bytes a second.
pub(super) fn rate(typed: &str) -> Result<u64, String> {
    let trimmed = typed.trim();
    let split = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let unit = UNITS.iter().find(|(name, _)| *name == unit.trim_start());
    let (Ok(number), Some((_, unit))) = (number.parse::<f64>(), unit) else {
        return Err("write a number and its unit, such as 85MB/s, 80MiB/s or 700Mbit/s".into());
    };
    let (rate, (least, most)) = (number * unit, RATES);
    if !(least..=most).contains(&rate) {
        return Err("it must be from 1kB/s to 1000GB/s".into());
    }
    // Within the bounds just looked at; a fraction of a byte is no loss.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(rate as u64)
}

/// A round trip: to the moon it is less than three seconds.
fn latency(typed: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(typed)
        .map_err(|_| "write a number and its unit, such as 50ms".to_owned())?;
    if parsed > Duration::from_mins(1) {
        return Err("it must be at most 1min".into());
    }
    Ok(parsed)
}

/// How many are slow, and how slow.
fn slow_parts(typed: &str) -> Result<SlowParts, String> {
    let how = || "write how many and how slow, such as 0.1%:5s".to_owned();
    let (percent, delay) = typed.split_once(':').ok_or_else(how)?;
    let percent: f64 =
        percent.strip_suffix('%').and_then(|number| number.parse().ok()).ok_or_else(how)?;
    let delay = humantime::parse_duration(delay).map_err(|_| how())?;
    if !(0.0..=100.0).contains(&percent) {
        return Err("how many must be from 0% to 100%".into());
    }
    if delay > Duration::from_hours(1) {
        return Err("how slow must be at most 1h".into());
    }
    Ok(SlowParts { chance: percent / 100.0, delay })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_decimal_binary_or_in_bits() {
        for (typed, expected) in [
            ("85MB/s", 85_000_000),
            ("85 MB/s", 85_000_000),
            ("1.5GB/s", 1_500_000_000),
            ("80MiB/s", 80 << 20),
            ("1GiB/s", 1 << 30),
            ("64KiB/s", 64 << 10),
            ("400kB/s", 400_000),
            ("700Mbit/s", 87_500_000),
            ("10Gbit/s", 1_250_000_000),
            ("1000B/s", 1000),
        ] {
            assert_eq!(rate(typed), Ok(expected), "{typed}");
        }
        for typed in ["", "85", "85MB", "85Mb/s", "85mb/s", "MB/s", "-1MB/s", "1.2.3MB/s", "fast"] {
            let said = rate(typed).expect_err(typed);
            assert!(said.ends_with("such as 85MB/s, 80MiB/s or 700Mbit/s"), "{typed}: {said}");
        }
        for typed in ["0MB/s", "999B/s", "1001GB/s"] {
            assert_eq!(rate(typed), Err("it must be from 1kB/s to 1000GB/s".into()), "{typed}");
        }
    }

    #[test]
    fn slow_parts_are_how_many_and_how_slow() {
        let parts = |chance, seconds| SlowParts { chance, delay: Duration::from_secs(seconds) };
        assert_eq!(slow_parts("0.1%:5s"), Ok(parts(0.001, 5)));
        assert_eq!(slow_parts("100%:1min"), Ok(parts(1.0, 60)));
        for typed in ["", "5s", "0.1:5s", "%:5s", "x%:5s", "1%:5", "1%", "-1%:", "NaN%:"] {
            let said = slow_parts(typed).expect_err(typed);
            assert_eq!(said, "write how many and how slow, such as 0.1%:5s", "{typed}");
        }
        for typed in ["101%:5s", "-1%:5s", "NaN%:5s"] {
            assert_eq!(
                slow_parts(typed),
                Err("how many must be from 0% to 100%".into()),
                "{typed}"
            );
        }
        assert_eq!(slow_parts("1%:2h"), Err("how slow must be at most 1h".into()));
    }

    #[test]
    fn latencies_have_units_and_an_end() {
        assert_eq!(latency("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(latency("0s"), Ok(Duration::ZERO));
        assert_eq!(latency("50"), Err("write a number and its unit, such as 50ms".into()));
        assert_eq!(latency("2min"), Err("it must be at most 1min".into()));
    }
}
