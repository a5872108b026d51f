//! Hides what looks like a secret in a line of a program's output, before the line reaches the log or a report.
//!
//! A name without its value is not a secret, so `invalid option "password"` stays as it is. In doubt, too much of the
//! line is hidden.

/// Replaces a secret.
const HIDDEN: &str = "[hidden]";

/// Parts of the names of options and settings whose values are secret.
const SECRET_NAMES: [&str; 15] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
    "secret",
    "token",
    "credential",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
    "accesskey",
    "private_key",
    "privatekey",
];
/// Settings of which such a word is a part, and whose values are not secret.
const PUBLIC_NAMES: [&str; 2] = ["password_required", "password_encryption"];

/// Messages with one of these words quote a connection string, or a part of it.
const CONNECTION_STRINGS: [&str; 5] = [
    "connection string",
    "connection info string",
    "for connection option",
    "percent-encoded",
    " URI",
];

/// A part of a text, in bytes.
type Part = std::ops::Range<usize>;

/// Returns the line without passwords: those in URLs, the values of names such as `password`, and password hashes.
pub(super) fn hide(line: &str) -> String {
    without(line, passwords(line))
}

/// Returns a message of Postgres without passwords, without the literals of SQL, and without the parts of connection
/// strings. Postgres itself quotes names with double quotes, so a text in single quotes is a part of a statement.
pub(super) fn hide_in_message(message: &str) -> String {
    let mut parts = passwords(message);
    parts.extend(literals(message));
    parts.extend(values_of_row(message));
    if CONNECTION_STRINGS.iter().any(|part| message.contains(part)) {
        parts.extend(quoted(message));
    }
    without(message, parts)
}

fn passwords(text: &str) -> Vec<Part> {
    [in_urls(text), values(text), hashes(text)].concat()
}

/// Replaces the parts. They are found in the original text, because hiding one can remove the quote of another.
fn without(text: &str, mut parts: Vec<Part>) -> String {
    parts.retain(|part| !part.is_empty());
    parts.sort_by_key(|part| part.start);
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    for part in parts {
        if part.start > at || at == 0 {
            shown.push_str(&text[at..part.start]);
            shown.push_str(HIDDEN);
        }
        at = at.max(part.end);
    }
    shown.push_str(&text[at..]);
    shown
}

/// Returns whether the value of an option or a setting with this name is secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let is_short = name.ends_with("pass") || name == "pw" || name.ends_with("_pw");
    (has(&SECRET_NAMES) || is_short) && !has(&PUBLIC_NAMES)
}

/// Returns the password in `scheme://user:password@host`.
fn in_urls(text: &str) -> Vec<Part> {
    let after = text.match_indices("://").map(|(at, mark)| at + mark.len());
    after
        .filter_map(|at| Some(shifted(password_of_url(&text[at..])?, at)))
        .collect()
}

/// Returns a part of a text that begins at this byte of a longer one.
fn shifted(part: Part, by: usize) -> Part {
    part.start + by..part.end + by
}

/// Returns where the password is in a URL without its scheme. The password may contain every character.
fn password_of_url(url: &str) -> Option<Part> {
    let begin = url.find(':')? + 1;
    let word_end = url.find(char::is_whitespace).unwrap_or(url.len());
    if begin > word_end {
        return None;
    }
    if let Some(at) = url[begin..word_end].rfind('@') {
        return Some(begin..begin + at);
    }
    // Either host and port, or a password with a space.
    let port_end = url[begin..].find(|letter: char| !letter.is_ascii_digit());
    let is_port = port_end != Some(0) || url.starts_with('[');
    let at = url[begin..].find('@').filter(|_| !is_port)?;
    Some(begin..begin + at)
}

/// Returns the values of secret names: `password=x`, `password 'x'`, `"password": "x"` and the like.
fn values(text: &str) -> Vec<Part> {
    let is_in_name = |letter: char| letter.is_alphanumeric() || "_-.".contains(letter);
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(begin) = text[at..].find(is_in_name) {
        let begin = at + begin;
        let name = &text[begin..];
        let name = &name[..name.find(|one| !is_in_name(one)).unwrap_or(name.len())];
        at = begin + name.len();
        let quoted = text[..begin].ends_with(['"', '\'', '`']);
        if is_secret(name)
            && let Some(part) = value(&text[at..], quoted, name)
        {
            let part = shifted(part, at);
            at = part.end;
            parts.push(part);
        }
    }
    parts
}

/// Returns where the value is in the text after a secret name, or `None` if no value follows. `name_quoted` is whether
/// the name is in quotes.
fn value(text: &str, name_quoted: bool, name: &str) -> Option<Part> {
    let mut rest = text;
    if name_quoted {
        rest = rest.trim_start_matches(['"', '\'', '`', '\\']);
    }
    rest = rest.trim_start();
    let after = rest.trim_start_matches(['=', ':', '>']).trim_start();
    let separated = after.len() < rest.len();
    let begin = text.len() - after.len();
    if let Some(end) = quoted_end(after) {
        // A message such as `invalid token "x"` names no secret.
        let is_name = !separated && after.starts_with('"') && name.eq_ignore_ascii_case("token");
        return (!is_name).then_some(begin..begin + end);
    }
    let end = bare_end(after);
    (separated && end > 0).then_some(begin..begin + end)
}

/// Returns where a bare value ends: at a space that is not escaped.
fn bare_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        if letter.is_whitespace() && !escaped {
            return at;
        }
        escaped = letter == '\\' && !escaped;
    }
    text.len()
}

/// Returns where the quoted text at the beginning ends, or `None` if the text begins with no quote. A text that is not
/// terminated ends with the line.
fn quoted_end(text: &str) -> Option<usize> {
    let prefix = ["U&", "u&", "E", "e", "B", "b", "X", "x", "N", "n", ""]
        .into_iter()
        .find(|prefix| {
            text.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(['\'', '"', '\\', '$']))
        })?;
    let rest = &text[prefix.len()..];
    let end = if rest.starts_with('$') {
        dollar_quoted_end(rest)?
    } else if let Some(escaped) = rest.strip_prefix('\\') {
        // A quote within a text in quotes: \"x\".
        let quote = escaped.chars().next().filter(|one| "'\"".contains(*one))?;
        let close = format!("\\{quote}");
        let end = escaped[1..].find(&close);
        end.map_or(rest.len(), |at| 2 + at + close.len())
    } else {
        let quote = rest.chars().next()?;
        let run = rest.len() - rest.trim_start_matches(quote).len();
        if run.is_multiple_of(2) {
            nested_end(rest, quote, run)
        } else {
            1 + literal_end(&rest[1..], quote)
        }
    };
    Some(prefix.len() + end)
}

/// Returns where a text in doubled quotes ends: a literal within a literal. Two quotes can also be an empty literal.
fn nested_end(text: &str, quote: char, run: usize) -> usize {
    let inner = &text[run..];
    if inner
        .chars()
        .next()
        .is_none_or(|next| next.is_whitespace() || ",;)}".contains(next))
    {
        return run;
    }
    let close: String = std::iter::repeat_n(quote, run).collect();
    let end = inner.find(&close);
    end.map_or(text.len(), |at| run + at + run)
}

/// Returns where the literal ends whose opening quote precedes the text. A doubled or escaped quote does not end it.
fn literal_end(text: &str, quote: char) -> usize {
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' {
            letters.next();
        } else if letter == quote && letters.next_if(|(_, next)| *next == quote).is_none() {
            return at + quote.len_utf8();
        }
    }
    text.len()
}

/// Returns where a text such as `$tag$ … $tag$` ends, or `None` if it does not begin with a tag.
fn dollar_quoted_end(text: &str) -> Option<usize> {
    let tag = text.strip_prefix('$')?;
    let length = tag.find(|letter: char| !letter.is_alphanumeric() && letter != '_')?;
    if !tag[length..].starts_with('$') || tag.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let tag = &text[..length + 2];
    let end = text[tag.len()..].find(tag);
    Some(end.map_or(text.len(), |at| tag.len() + at + tag.len()))
}

/// Returns the literals of SQL: what is in single quotes or between dollar tags. An apostrophe follows a letter, and
/// begins none.
fn literals(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(['\'', '$']) {
        let begin = at + found;
        at = begin + 1;
        if !begins_literal(&text[..begin]) {
            continue;
        }
        if text[begin..].starts_with('\'') {
            let end = at + literal_end(&text[at..], '\'');
            let closed = text[at..end].ends_with('\'');
            parts.push(at..end - usize::from(closed));
            at = end;
        } else if let Some(length) = dollar_quoted_end(&text[begin..]) {
            parts.push(begin..begin + length);
            at = begin + length;
        }
    }
    parts
}

/// Returns whether a quote after this text begins a literal: not after a letter, unless the letter is a prefix as in
/// `E'…'`.
fn begins_literal(before: &str) -> bool {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let word = before.trim_end_matches(is_word);
    let word = &before[word.len()..];
    word.is_empty() || (word.len() == 1 && "eEbBxXnN".contains(word))
}

/// Returns the text between the first and the last double quote.
fn quoted(text: &str) -> Option<Part> {
    let begin = text.find('"')? + 1;
    let end = text[begin..].rfind('"');
    Some(begin..end.map_or(text.len(), |end| begin + end))
}

/// Returns the values of a row: all of `Failing row contains (…)`, and those of `Key (…)=(…)` if the name of a column
/// is secret.
fn values_of_row(text: &str) -> Option<Part> {
    const ROW: &str = "row contains (";
    let begin = if let Some(at) = text.find(ROW) {
        at + ROW.len()
    } else {
        let (names, _) = text.split_once(")=(")?;
        let (_, columns) = names.split_once("Key (")?;
        let mut columns = columns.split([',', ' ', '"', '(']);
        columns.find(|name| is_secret(name))?;
        names.len() + ")=(".len()
    };
    let end = text[begin..].rfind(')');
    Some(begin..end.map_or(text.len(), |end| begin + end))
}

/// Returns password hashes as `pg_authid` has them.
fn hashes(text: &str) -> Vec<Part> {
    let is_hash = |at: &usize| {
        let digits = text.as_bytes().get(at + 3..at + 35);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let begins = |mark| text.match_indices(mark).map(|(at, _)| at);
    let scram = begins("SCRAM-SHA-").map(|at| {
        let ends = |letter: char| letter.is_whitespace() || "'\"".contains(letter);
        at..text[at..].find(ends).map_or(text.len(), |end| at + end)
    });
    let md5 = begins("md5").filter(is_hash).map(|at| at..at + 35);
    scram.chain(md5).collect()
}

#[cfg(test)]
mod tests;
