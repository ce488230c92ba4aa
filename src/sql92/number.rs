//! Numbers in text, read as Java's `Integer.valueOf`, `Long.valueOf` and `Double.valueOf` read them.

/// The digit zero of every script that Java counts with, in the plane that its `char` covers.
const ZEROS: [u16; 37] = [
    0x0030, 0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6, 0x0C66, 0x0CE6, 0x0D66,
    0x0DE6, 0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50,
    0x1BB0, 0x1C40, 0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10,
];

/// `Integer.valueOf`.
pub(super) fn int(text: &str) -> Option<i32> {
    long(text).and_then(|value| i32::try_from(value).ok())
}

/// `Long.valueOf`: a sign or none, then digits of any script.
pub(super) fn long(text: &str) -> Option<i64> {
    let (negative, digits) = signed(text);
    if digits.is_empty() {
        return None;
    }
    // Downwards, since there is one negative number more.
    let mut value: i64 = 0;
    for c in digits.chars() {
        value = value.checked_mul(10)?.checked_sub(digit(c)?)?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

fn signed(text: &str) -> (bool, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    }
}

fn digit(c: char) -> Option<i64> {
    let code = u16::try_from(u32::from(c)).ok()?;
    let next = ZEROS.partition_point(|zero| *zero <= code);
    let zero = *ZEROS.get(next.checked_sub(1)?)?;
    Some(i64::from(code - zero)).filter(|digit| *digit < 10)
}

/// `Double.valueOf`: white space around it does not count; `NaN`, `Infinity`, a decimal or a hexadecimal number, the
/// numbers with a `d` or `f` behind them or none.
pub(super) fn double(text: &str) -> Option<f64> {
    let (negative, number) = signed(text.trim_matches(|c| c <= ' '));
    let value = match number {
        "NaN" => f64::NAN,
        "Infinity" => f64::INFINITY,
        _ => {
            let bare = number.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(number);
            match number.strip_prefix("0x").or_else(|| number.strip_prefix("0X")) {
                Some(_) => hexadecimal(number)?,
                None => decimal(bare)?,
            }
        }
    };
    Some(if negative && !value.is_nan() { -value } else { value })
}

fn decimal(text: &str) -> Option<f64> {
    // Rust reads the same numbers and the words for the others; the words have been dealt with.
    if text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        && !text.starts_with(['+', '-'])
    {
        text.parse().ok()
    } else {
        None
    }
}

/// `0x`, hexadecimal digits with a point or none, `p` and the power of two.
fn hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, power) = text[2..].split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let power = power.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(power);
    let (negative, power) = signed(power);
    if power.is_empty() || !power.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let power = power.bytes().fold(0i64, |sum, b| (sum * 10 + i64::from(b - b'0')).min(1 << 40));
    let mut exponent = if negative { -power } else { power };
    let mut bits: u64 = 0;
    for (digits, step) in [(whole, 0), (fraction, -4)] {
        for c in digits.chars() {
            let digit = u64::from(c.to_digit(16)?);
            if bits >> 60 == 0 {
                bits = bits << 4 | digit;
                exponent += step;
            } else {
                // Too far behind to count for itself: it only breaks ties.
                bits |= u64::from(digit != 0);
                exponent += step + 4;
            }
        }
    }
    Some(scaled(bits, exponent))
}

/// `bits * 2^exponent`, rounded to the nearest, ties to the even one.
fn scaled(bits: u64, exponent: i64) -> f64 {
    if bits == 0 {
        return 0.0;
    }
    let width = i64::from(64 - bits.leading_zeros());
    // The power of the leading bit.
    let lead = exponent.saturating_add(width - 1);
    if lead > 1_023 {
        return f64::INFINITY;
    }
    let room = if lead >= -1_022 { 53 } else { 53 - (-1_022 - lead) };
    if room < 0 {
        return 0.0;
    }
    let drop = width - room;
    let kept = if drop <= 0 {
        bits << -drop
    } else {
        let (wide, unit) = (u128::from(bits), 1u128 << drop);
        let (kept, rest) = (wide / unit, wide % unit);
        let up = rest > unit / 2 || (rest == unit / 2 && kept % 2 == 1);
        u64::try_from(kept).unwrap_or(u64::MAX) + u64::from(up)
    };
    // A carry moves on into the exponent by itself.
    let biased = if room == 53 { u64::try_from(lead + 1_022).unwrap_or(0) << 52 } else { 0 };
    f64::from_bits(biased + kept)
}
