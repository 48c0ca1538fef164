//! JSON of the host application, preserved exactly: a library that parses numbers as doubles loses
//! digits beyond the sixteenth, so that different values become equal.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::value::RawValue;

/// Removes insignificant white space and needless escapes (Python writes `\u043f` for `п`). Numbers
/// and the order of keys stay as written.
pub fn compact(json: &RawValue) -> Result<Box<RawValue>, serde_json::Error> {
    let mut rest = json.get();
    let mut compact = String::with_capacity(rest.len());
    while let Some(next) = rest.chars().next() {
        // Valid JSON is ASCII outside of strings.
        let length = if next == '"' { string_length(rest) } else { 1 };
        let (part, after) = rest.split_at(length);
        match next {
            '"' => write_string(&mut compact, &serde_json::from_str::<String>(part)?),
            ' ' | '\t' | '\n' | '\r' => {}
            _ => compact.push(next),
        }
        rest = after;
    }
    RawValue::from_string(compact)
}

/// Length in bytes of the string that `json` begins with, quotes included.
fn string_length(json: &str) -> usize {
    let mut escaped = false;
    let end = json.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    // Plus both quotes.
    end.map_or(json.len(), |end| end + 2)
}

fn write_string(json: &mut String, text: &str) {
    // A string can't fail to serialize.
    json.push_str(&serde_json::to_string(text).unwrap_or_default());
}

/// Returns the canonical form of a value: equal for equal values only. White space, escapes and the
/// order of keys do not count; of duplicate keys the last counts; numbers are compared by their
/// exact value (`1`, `1.0`, `10e-1`; `0`, `-0`).
pub fn canonical(json: &RawValue) -> Result<String, serde_json::Error> {
    let mut canonical = String::with_capacity(json.get().len());
    write_canonical(&mut canonical, json)?;
    Ok(canonical)
}

fn write_canonical(canonical: &mut String, json: &RawValue) -> Result<(), serde_json::Error> {
    let raw = json.get();
    match raw.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(raw)?;
            canonical.push('{');
            for (key, value) in members {
                write_string(canonical, &key);
                canonical.push(':');
                write_canonical(canonical, value)?;
                canonical.push(',');
            }
            canonical.push('}');
        }
        Some(b'[') => {
            canonical.push('[');
            for item in serde_json::from_str::<Vec<&RawValue>>(raw)? {
                write_canonical(canonical, item)?;
                canonical.push(',');
            }
            canonical.push(']');
        }
        Some(b'"') => write_string(canonical, &serde_json::from_str::<String>(raw)?),
        Some(b'-' | b'0'..=b'9') => write_number(canonical, raw),
        // true, false, null.
        _ => canonical.push_str(raw),
    }
    Ok(())
}

/// Maximum digits of an integer that is written without an exponent, enough for 64 bits; zeros that
/// stand for a large exponent could fill the memory.
const MAX_PLAIN_DIGITS: usize = 20;

/// Writes a number in canonical form: its digits without zeros at either end, and a power of ten.
fn write_number(canonical: &mut String, raw: &str) {
    let (sign, unsigned) = match raw.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", raw),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        canonical.push('0');
        return;
    }
    // Lengths within one request, far from overflow.
    let shift = (digits.len() - significant.len()) as i64 - fraction.len() as i64;
    let exponent = exponent.parse::<i64>().ok().and_then(|it| it.checked_add(shift));
    let written = match exponent {
        Some(power @ 0..) if significant.len() as i64 + power <= MAX_PLAIN_DIGITS as i64 => {
            let zeros = usize::try_from(power).unwrap_or(0);
            write!(canonical, "{sign}{significant}{:0<zeros$}", "")
        }
        Some(power) => write!(canonical, "{sign}{significant}e{power}"),
        // An exponent out of range is equal to itself only.
        None => write!(canonical, "{raw}"),
    };
    // Writing to a String cannot fail.
    let _ = written;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    fn canonical(json: &str) -> String {
        super::canonical(&raw(json)).expect("valid")
    }

    #[test]
    fn numbers_are_equal_where_their_exact_values_are() {
        let equal: [&[&str]; 10] = [
            &["0", "-0", "0.0", "-0.00", "0e7", "0E-999999999999999999999"],
            &["1", "1.0", "1e0", "10e-1", "0.1E+1", "100E-2"],
            &["100", "1e2", "1E+2", "100.000"],
            &["-1", "-1.0", "-10e-1"],
            &["1.5", "15e-1", "1.50"],
            &["100000000000000000000001", "100000000000000000000001.0"],
            &["100000000000000000000002"],
            &["18446744073709551615"],
            &["18446744073709551616", "1844674407370955161.6e1"],
            &["1e30", "1000000000000000000000000000000"],
        ];
        for (index, group) in equal.iter().enumerate() {
            for number in *group {
                assert_eq!(canonical(number), canonical(group[0]), "{number}");
            }
            for others in &equal[index + 1..] {
                assert_ne!(canonical(group[0]), canonical(others[0]));
            }
        }
        for (one, other) in [
            ("9007199254740993", "9007199254740992"),
            ("0.1", "0.1000000000000000055511151231257827"),
            ("1e-400", "2e-400"),
            ("1e-99999999999999999999", "1e-99999999999999999998"),
        ] {
            assert_ne!(canonical(one), canonical(other), "{one} {other}");
        }
        // No longer than the input, whatever the exponent.
        assert!(canonical("1e300").len() < 10);
    }

    #[test]
    fn white_space_escapes_and_the_order_of_keys_do_not_count_and_all_else_does() {
        let one = r#"{"a":"п\n","b":[1,2.0,{"c":null}],"d":{}}"#;
        let same =
            "{ \"d\" : {\n},\t\"b\":[ 1 , 2, {\"c\":null}], \"a\":0, \"\\u0061\":\"\\u043f\\n\"}";
        assert_eq!(canonical(one), canonical(same));
        for other in [
            r#"{"a":"п\n","b":[2,1,{"c":null}],"d":{}}"#,
            r#"{"a":"п\n","b":[1,2.0,{"c":null}],"d":[]}"#,
            r#"{"a":"п\n","b":[1,2.0,{"c":false}],"d":{}}"#,
            r#"{"a":"п\n","b":["1",2.0,{"c":null}],"d":{}}"#,
            r#"{"a":"п\n","b":[1,2.0,{}],"d":{}}"#,
            r#"{"a":"п\n","b":[[1,2.0],{"c":null}],"d":{}}"#,
        ] {
            assert_ne!(canonical(one), canonical(other), "{other}");
        }
    }

    #[test]
    fn a_compact_value_is_the_same_one_in_fewer_bytes() {
        for (sent, kept) in [
            ("{ \"b\" : 1.0,\r\n\t\"a\" : [ ] }", r#"{"b":1.0,"a":[]}"#),
            (r#"{"\u043f\u0440":"\ud83d\ude00 \/ \" \\"}"#, r#"{"пр":"😀 / \" \\"}"#),
            (r#"{"a":"\\\" { ","a":-0E+1}"#, r#"{"a":"\\\" { ","a":-0E+1}"#),
            (r#"{"a":"\u0000\u001f\u007f\n"}"#, "{\"a\":\"\\u0000\\u001f\u{7f}\\n\"}"),
            (r#"{"n":100000000000000000000001}"#, r#"{"n":100000000000000000000001}"#),
        ] {
            assert_eq!(compact(&raw(sent)).expect("valid").get(), kept);
            assert_eq!(canonical(sent), canonical(kept));
        }
    }
}
