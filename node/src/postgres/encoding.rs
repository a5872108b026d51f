//! Converts the server's texts, in any encoding, into strings and back without loss.
//!
//! UTF-8 stays as it is. Each other byte becomes one character of a private use range, and that byte again on its way
//! to the server.

/// The character for the byte 0. Bytes below 128 are ASCII and never need one.
const FIRST: u32 = 0xF700;

/// Returns the server's bytes as a string.
pub(crate) fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if byte_of(character).is_some() {
                // A character of the range itself is escaped byte by byte, so that `encode` returns it unchanged.
                let mut buffer = [0; 4];
                escape(character.encode_utf8(&mut buffer).as_bytes(), &mut text);
            } else {
                text.push(character);
            }
        }
        escape(chunk.invalid(), &mut text);
    }
    text
}

/// Returns the server's bytes for a string from [`decode`].
pub(crate) fn encode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        if let Some(byte) = byte_of(character) {
            bytes.push(byte);
        } else {
            let mut buffer = [0; 4];
            bytes.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
        }
    }
    bytes
}

fn escape(bytes: &[u8], text: &mut String) {
    let characters = bytes.iter().map(|byte| FIRST + u32::from(*byte));
    text.extend(characters.filter_map(char::from_u32));
}

/// Returns the byte that a character represents, or `None` if it represents itself.
fn byte_of(character: char) -> Option<u8> {
    let byte = u32::from(character).checked_sub(FIRST)?;
    u8::try_from(byte).ok().filter(|byte| !byte.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_in_other_encodings_are_unchanged() {
        assert_eq!(decode("größe 表".as_bytes()), "größe 表");
        let latin = b"gr\xf6\xdfe";
        assert_ne!(decode(latin), "größe");
        assert_eq!(encode(&decode(latin)), latin);
    }

    proptest! {
        #[test]
        fn every_text_is_unchanged(bytes in prop::collection::vec(any::<u8>(), 0..40), text in "[\\PC\u{F700}-\u{F7FF}]{0,20}") {
            prop_assert_eq!(encode(&decode(&bytes)), bytes);
            prop_assert_eq!(encode(&decode(text.as_bytes())), text.as_bytes());
        }

        #[test]
        fn different_texts_stay_different(one in prop::collection::vec(any::<u8>(), 0..6), other in prop::collection::vec(any::<u8>(), 0..6)) {
            prop_assert_eq!(decode(&one) == decode(&other), one == other);
        }
    }
}
