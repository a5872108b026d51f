//! Changes to an input, which `proptest` draws and shrinks: of bytes, of words, and of JSON values.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Map, Value, json};

/// The length of the longest mutated input, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Words that cause trouble: paths, quotes, the largest numbers of types, and names of another application.
const WORDS: [&str; 34] = [
    "",
    "\0",
    "\n",
    " ",
    "'",
    "\"",
    "\\",
    "/",
    "//",
    ".",
    "..",
    "../",
    "/../",
    ";",
    "$(id)",
    "`id`",
    "{{",
    ",",
    "-",
    "=",
    "é",
    "\u{202e}",
    "-1",
    "1e308",
    "9223372036854775807",
    "18446744073709551616",
    "170141183460469231731687303715884105727",
    "9999-12-31T23:59:59-23:59",
    "0000-01-01T00:00:00+23:59",
    "99991231T235959.999Z",
    "gitea",
    "backups/gitea/2026-11-23/20261123T021500.000Z/0a1b2c3d/index.json",
    "\\! id\n",
    "E'a'\n'\\''",
];

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    /// A byte is replaced.
    Byte(Index, u8),
    /// A word replaces this number of bytes.
    Word(Index, u8, &'static str),
    /// A part is removed.
    Cut(Index, Index),
    /// A part is repeated after itself.
    Repeat(Index, Index, u8),
    /// A part of another input is inserted.
    Splice(Index, Index, Index),
    /// A value within the JSON is changed. An input that is not JSON stays unchanged.
    Json(Index, ValueChange),
}

/// A change of a JSON value.
#[derive(Debug, Clone)]
pub enum ValueChange {
    /// It is replaced by this value.
    Replace(Value),
    /// A word is added after a text, or before it.
    Join(&'static str, bool),
    /// It is removed from its list or object.
    Remove,
    /// It is repeated this number of times, in a list.
    Repeat(u8),
    /// It is wrapped in this number of lists.
    Nest(u8),
}

/// Draws one to six changes.
pub fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<Index>;
    let word = || select(&WORDS[..]);
    let value = prop_oneof![
        select(vec![
            json!(null),
            json!(true),
            json!([]),
            json!({}),
            json!(0),
            json!(-1),
            json!(0.5),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1e308),
        ]),
        word().prop_map(Value::from),
    ];
    let value_change = prop_oneof![
        4 => value.prop_map(ValueChange::Replace),
        3 => (word(), any::<bool>()).prop_map(|(word, after)| ValueChange::Join(word, after)),
        1 => Just(ValueChange::Remove),
        1 => (1..40_u8).prop_map(ValueChange::Repeat),
        1 => (1..200_u8).prop_map(ValueChange::Nest),
    ];
    let change = prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        3 => (at(), 0..8_u8, word()).prop_map(|(at, gone, word)| Change::Word(at, gone, word)),
        1 => (at(), at()).prop_map(|(from, to)| Change::Cut(from, to)),
        1 => (at(), at(), 1..20_u8).prop_map(|(from, to, times)| Change::Repeat(from, to, times)),
        1 => (at(), at(), at()).prop_map(|(at, from, to)| Change::Splice(at, from, to)),
        4 => (at(), value_change).prop_map(|(at, change)| Change::Json(at, change)),
    ];
    prop::collection::vec(change, 1..=6)
}

/// Returns a changed input. Parts are taken from `other`.
pub fn changed(input: &[u8], other: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for change in changes {
        apply(&mut bytes, other, change);
        bytes.truncate(MAX_BYTES);
    }
    bytes
}

fn apply(bytes: &mut Vec<u8>, other: &[u8], change: &Change) {
    let place = |at: &Index, length: usize| at.index(length + 1);
    let part = |from: &Index, to: &Index, length: usize| {
        let (from, to) = (place(from, length), place(to, length));
        from.min(to)..from.max(to)
    };
    let length = bytes.len();
    match change {
        Change::Byte(at, byte) => {
            if let Some(found) = bytes.get_mut(place(at, length)) {
                *found = *byte;
            }
        }
        Change::Word(at, gone, word) => {
            let at = place(at, length);
            let end = length.min(at + usize::from(*gone));
            bytes.splice(at..end, word.bytes());
        }
        Change::Cut(from, to) => {
            bytes.drain(part(from, to, length));
        }
        Change::Repeat(from, to, times) => {
            let part = part(from, to, length);
            let most = usize::from(*times).min(MAX_BYTES / part.len().max(1));
            let repeated = bytes[part.clone()].repeat(most);
            bytes.splice(part.end..part.end, repeated);
        }
        Change::Splice(at, from, to) => {
            let at = place(at, length);
            let part = &other[part(from, to, other.len())];
            bytes.splice(at..at, part.iter().copied());
        }
        Change::Json(at, change) => {
            if let Ok(mut json) = serde_json::from_slice::<Value>(bytes) {
                let count = count(&json);
                replace(&mut json, &mut at.index(count), change);
                *bytes = json.to_string().into_bytes();
            }
        }
    }
}

/// Returns the number of values within a value, itself included.
fn count(json: &Value) -> usize {
    1 + match json {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// Changes the value after `left` others, in depth-first order. Returns whether it was reached.
fn replace(json: &mut Value, left: &mut usize, change: &ValueChange) -> bool {
    if *left == 0 {
        *json = changed_value(json, change);
        return true;
    }
    *left -= 1;
    match json {
        Value::Array(list) => {
            for number in 0..list.len() {
                if *left == 0 && matches!(change, ValueChange::Remove) {
                    list.remove(number);
                    return true;
                }
                if *left == 0
                    && let ValueChange::Repeat(times) = change
                {
                    let again = vec![list[number].clone(); usize::from(*times)];
                    list.extend(again);
                    return true;
                }
                if replace(&mut list[number], left, change) {
                    return true;
                }
            }
            false
        }
        Value::Object(map) => {
            let names: Vec<String> = map.keys().cloned().collect();
            for name in names {
                if *left == 0 && matches!(change, ValueChange::Remove) {
                    map.remove(&name);
                    return true;
                }
                if map
                    .get_mut(&name)
                    .is_some_and(|value| replace(value, left, change))
                {
                    return true;
                }
            }
            false
        }
        _ => false,
    }
}

fn changed_value(json: &Value, change: &ValueChange) -> Value {
    match change {
        ValueChange::Replace(value) => value.clone(),
        ValueChange::Join(word, after) => match json.as_str() {
            Some(text) if *after => format!("{text}{word}").into(),
            Some(text) => format!("{word}{text}").into(),
            None => Value::from(*word),
        },
        ValueChange::Remove => Value::Object(Map::new()),
        ValueChange::Repeat(times) => Value::Array(vec![json.clone(); usize::from(*times)]),
        ValueChange::Nest(levels) => {
            let wrap = |inner, _| Value::Array(vec![inner]);
            (0..*levels).fold(json.clone(), wrap)
        }
    }
}
