//! Sizes as people type them, and figures as people read them.

/// Reads `128`, `1k`, `900m`, `8g`: bytes in powers of 1,024.
pub fn size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_lowercase();
    let lower = lower.trim_end_matches('b').trim_end_matches('i');
    let shift = match lower.as_bytes().last() {
        Some(b'k') => 10,
        Some(b'm') => 20,
        Some(b'g') => 30,
        Some(b't') => 40,
        _ => 0,
    };
    let digits = if shift == 0 { lower } else { &lower[..lower.len() - 1] };
    let number: u64 =
        digits.trim().parse().map_err(|_| format!("{text:?} is no size; sizes are like 128, 1k, 64m, 8g"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))
}

/// A number of bytes, short and exact where it can be: `128 B`, `1 KiB`, `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in units {
        if count >= 1 << shift {
            let whole = count as f64 / (1_u64 << shift) as f64;
            return if count.is_multiple_of(1 << shift) {
                format!("{whole:.0} {unit}")
            } else {
                format!("{whole:.1} {unit}")
            };
        }
    }
    format!("{count} B")
}

/// A figure with three digits and a letter for its thousands: `5.31M`.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let (scaled, letter) = match size {
        s if s >= 1e9 => (value / 1e9, "G"),
        s if s >= 1e6 => (value / 1e6, "M"),
        s if s >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        s if s >= 100.0 => 0,
        s if s >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{letter}")
}

/// A value with its unit; microseconds become what reads best.
pub fn with_unit(value: f64, unit: &str) -> String {
    match unit {
        "us" => micros(value),
        "ns" => micros(value / 1e3),
        "s" => micros(value * 1e6),
        _ => format!("{} {unit}", short(value)),
    }
}

/// A time of microseconds in the unit that reads best.
pub fn micros(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} s", short(v / 1e6)),
        v if v >= 1e3 => format!("{} ms", short(v / 1e3)),
        v if v >= 1.0 || v == 0.0 => format!("{} µs", short(v)),
        v => format!("{} ns", short(v * 1e3)),
    }
}

/// A number of threads and the like: `1 thread`, `4 threads`.
pub fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        for (text, want) in [("128", 128), ("1k", 1024), ("1KiB", 1024), ("64m", 64 << 20), (" 8G ", 8 << 30)]
        {
            assert_eq!(size(text), Ok(want), "{text}");
        }
        for bad in ["", "k", "1.5g", "-1", "99999999999t", "8x"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn figures_have_three_digits() {
        for (value, want) in
            [(5_312_000.0, "5.31M"), (258_000.0, "258k"), (0.5, "0.50"), (42.0, "42.0"), (3.2e9, "3.20G")]
        {
            assert_eq!(short(value), want);
        }
        assert_eq!(
            (bytes(128).as_str(), bytes(1024).as_str(), bytes(1536 << 20).as_str()),
            ("128 B", "1 KiB", "1.5 GiB")
        );
        assert_eq!((with_unit(0.02, "us").as_str(), with_unit(1.5, "s").as_str()), ("20.0 ns", "1.50 s"));
        assert_eq!(with_unit(12_500.0, "us"), "12.5 ms");
    }
}
