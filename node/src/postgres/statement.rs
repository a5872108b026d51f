//! Splits an SQL script into statements in the same way as psql.

/// One statement, without its semicolon and without the comments before it.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// The statement's text in the script.
    pub text: &'a str,
    /// Its names and key words in order, without literals and punctuation.
    pub words: Vec<Word>,
}

/// A name or a key word.
#[derive(Debug, PartialEq, Eq)]
pub struct Word {
    /// The text, without quotation marks.
    pub text: String,
    /// Whether it was in quotation marks, so that it cannot be a key word.
    pub quoted: bool,
}

impl Word {
    /// Returns whether it is this key word.
    pub(crate) fn is(&self, key_word: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(key_word)
    }
}

impl Statement<'_> {
    /// Returns whether the statement begins with these key words.
    pub(crate) fn begins_with(&self, key_words: &[&str]) -> bool {
        self.words.len() >= key_words.len()
            && key_words
                .iter()
                .zip(&self.words)
                .all(|(key_word, word)| word.is(key_word))
    }
}

/// The psql commands that `pg_dumpall` writes, each on a line of its own. They are left out.
const IGNORED: [&str; 3] = ["\\restrict ", "\\unrestrict ", "\\connect "];

/// Splits a script into statements.
///
/// Returns an error if psql could read the script differently, because it might then run part of a text as a psql
/// command: a backslash outside of quotes and comments (except for the ignored commands), an unterminated text or
/// comment, and everything that psql versions read differently.
pub fn statements(script: &str) -> Result<Vec<Statement<'_>>, String> {
    if let Some(at) = script.find('\0') {
        return Err(format!(
            "a zero byte, where psql ends the line (at byte {at})"
        ));
    }
    let mut statements = Vec::new();
    let mut at = 0;
    // The beginning of the current statement, or `None` between statements.
    let mut begin = None;
    let mut words = Vec::new();
    while at < script.len() {
        let rest = &script[at..];
        let token = token(rest).map_err(|problem| format!("{problem} (at byte {at})"))?;
        let length = token.length();
        match token {
            Token::Space(_) => {}
            Token::Command(_) if begin.is_none() => {}
            Token::Command(_) => {
                return Err(format!("a psql command within a statement (at byte {at})"));
            }
            Token::End => {
                if let Some(begin) = begin.take() {
                    let text = &script[begin..at];
                    let words = std::mem::take(&mut words);
                    statements.push(Statement { text, words });
                }
            }
            Token::Word(_, word) => {
                begin.get_or_insert(at);
                words.push(word);
            }
            Token::Other(_) => {
                begin.get_or_insert(at);
            }
        }
        at += length;
    }
    match begin {
        None => Ok(statements),
        // Without the statement's text: it can contain a password.
        Some(begin) => Err(format!(
            "no semicolon after the last statement (at byte {begin})"
        )),
    }
}

/// A token, with its length in bytes.
enum Token {
    /// White space or a comment.
    Space(usize),
    /// The line of an ignored psql command.
    Command(usize),
    /// A semicolon.
    End,
    /// A name or a key word.
    Word(usize, Word),
    /// A literal, an operator, a number.
    Other(usize),
}

impl Token {
    fn length(&self) -> usize {
        match self {
            Self::End => 1,
            Self::Space(length)
            | Self::Command(length)
            | Self::Word(length, _)
            | Self::Other(length) => *length,
        }
    }
}

fn token(text: &str) -> Result<Token, String> {
    let mut characters = text.chars();
    let Some(first) = characters.next() else {
        return Ok(Token::Space(0));
    };
    let second = characters.next();
    let line = text.find('\n').unwrap_or(text.len());
    Ok(match (first, second) {
        (c, _) if c.is_ascii_whitespace() => Token::Space(1),
        // For psql, a carriage return also ends a comment.
        ('-', Some('-')) => Token::Space(text.find(['\n', '\r']).unwrap_or(text.len())),
        ('/', Some('*')) => Token::Space(comment(text)?),
        ('\\', _) if IGNORED.iter().any(|command| text.starts_with(command)) => {
            Token::Command(line)
        }
        ('\\', _) => return Err("a backslash outside of quotes".to_owned()),
        (';', _) => Token::End,
        (':', Some(':')) => Token::Other(2),
        (':', Some(c)) if continues_name(c) || matches!(c, '\'' | '"' | '{') => {
            return Err("a psql variable".to_owned());
        }
        ('"', _) => {
            let length = quoted(text, '"', false)?;
            let text = text[1..length - 1].replace("\"\"", "\"");
            Token::Word(length, Word { text, quoted: true })
        }
        ('\'', _) => Token::Other(quoted(text, '\'', false)?),
        ('E' | 'e', Some('\'')) => Token::Other(1 + quoted(&text[1..], '\'', true)?),
        ('$', _) => Token::Other(dollar_quoted(text)?),
        (c, _) if begins_name(c) => {
            let length = text.find(|c| !continues_name(c)).unwrap_or(text.len());
            // The server converts unquoted names to lower case.
            let folded = text[..length].to_ascii_lowercase();
            Token::Word(
                length,
                Word {
                    text: folded,
                    quoted: false,
                },
            )
        }
        (c, _) if c.is_ascii_digit() => Token::Other(number(text)?),
        (c, _) => Token::Other(c.len_utf8()),
    })
}

fn begins_name(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic() || !c.is_ascii()
}

fn continues_name(c: char) -> bool {
    begins_name(c) || c == '$' || c.is_ascii_digit()
}

/// Returns the length of a number, including the letters that follow it, as in 1e5.
fn number(text: &str) -> Result<usize, String> {
    let ends = |c| !continues_name(c) || c == '$';
    let length = text.find(ends).unwrap_or(text.len());
    // Versions of psql divide a number and the letters after it in different ways, also in `1e--`.
    if ["$", "'", "--"]
        .iter()
        .any(|next| text[length..].starts_with(next))
    {
        return Err("a number directly before a quote or a comment".to_owned());
    }
    Ok(length)
}

/// Returns the length of a comment. Comments can be nested.
fn comment(text: &str) -> Result<usize, String> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0);
    while at + 1 < bytes.len() {
        match (bytes[at], bytes[at + 1]) {
            (b'/', b'*') => {
                depth += 1;
                at += 2;
            }
            (b'*', b'/') => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Ok(at);
                }
            }
            _ => at += 1,
        }
    }
    Err("an unterminated comment".to_owned())
}

/// Returns the length of a quoted text. A doubled quote is part of it.
fn quoted(text: &str, quote: char, backslashes: bool) -> Result<usize, String> {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if backslashes && c == '\\' {
            characters.next();
        } else if c == quote {
            match characters.peek() {
                Some((_, next)) if *next == quote => {
                    characters.next();
                }
                _ => return Ok(at + 1),
            }
        }
    }
    Err(format!("an unterminated text in {quote}"))
}

/// Returns the length of `$tag$ … $tag$`, or 1 for the `$` of a parameter such as `$1`.
fn dollar_quoted(text: &str) -> Result<usize, String> {
    let tag_end = text[1..].find(|c| !continues_name(c) || c == '$');
    let tag = tag_end.and_then(|end| text.get(..end + 2));
    match tag {
        Some(tag) if tag.ends_with('$') && !tag[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            let body = &text[tag.len()..];
            let end = body.find(tag);
            let end = end.ok_or_else(|| format!("an unterminated text in {tag}"))?;
            Ok(tag.len() + end + tag.len())
        }
        _ => Ok(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::quote::{identifier, literal};
    use proptest::prelude::*;

    fn texts(script: &str) -> Vec<&str> {
        let statements = statements(script).unwrap();
        statements.iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn quotes_and_comments_hide_semicolons() {
        let script = "--\n-- a; comment\n--\n\n\\restrict a;b\n/* x; /* y; */ */ CREATE ROLE \"a;\"\"b\";\n\
            SELECT 'it''s; \\', E'\\'; \\\\', $$a;b$$, $t$ $$; $t$, 1e5, $1; ;\n\\unrestrict x\n";
        assert_eq!(
            texts(script),
            [
                "CREATE ROLE \"a;\"\"b\"",
                "SELECT 'it''s; \\', E'\\'; \\\\', $$a;b$$, $t$ $$; $t$, 1e5, $1"
            ]
        );
    }

    #[test]
    fn names_are_unquoted_and_in_lower_case() {
        let statements = statements("Create Role \"a\"\"B\"; CREATE ROLE aB").unwrap_err();
        assert!(statements.contains("no semicolon"), "{statements}");
        assert!(!statements.contains("CREATE"), "{statements}");
        let statements = super::statements("Create Role \"a\"\"B\"; CREATE ROLE aB;").unwrap();
        assert!(statements[0].begins_with(&["CREATE", "ROLE"]));
        assert_eq!(statements[0].words[2].text, "a\"B");
        assert_eq!(statements[1].words[2].text, "ab");
    }

    #[test]
    fn text_that_psql_might_run_as_its_own_command_is_refused() {
        for script in [
            "\\! id\n",
            "SELECT 1 \\gexec\n",
            "SELECT 1 \\restrict x\n;",
            "\\connectx\n",
            "SELECT 'a",
            "SELECT \"a",
            "SELECT $a$ $b$",
            "/* ",
            // psql 15 runs the commands in all of these except the last; an older psql may run the one in the last.
            "SELECT 1 -- \r \\! id\n;",
            "SELECT 'a\0';\nSELECT ' \\! id '\n;",
            "SELECT 1$a$ ' $a$ \\! id # '\n;",
            "SELECT $1$a$ ' $a$ \\! id # '\n;",
            "SELECT 1e--'(e'\\! id\n;",
            "SELECT :E'--\\'\\! id\n1\\'';",
            "SELECT :USER;",
            "SELECT 1e'\\'' ; \\! id \n --';",
        ] {
            assert!(statements(script).is_err(), "{script:?}");
        }
    }

    proptest! {
        #[test]
        fn quoted_text_stays_in_its_statement(names in prop::collection::vec("\\PC{0,12}|[\"'\\\\;$\n-]{0,8}", 1..6)) {
            let script: Vec<String> = names
                .iter()
                .map(|name| {
                    let comment = name.replace('\n', " ");
                    let (role, text) = (identifier(name), literal(name));
                    format!("-- {comment}\nCOMMENT ON ROLE {role} IS {text};\n\n")
                })
                .collect();
            let script = script.concat();
            let statements = statements(&script).unwrap();
            prop_assert_eq!(statements.len(), names.len());
            for (statement, name) in statements.iter().zip(&names) {
                prop_assert_eq!(&statement.words[3].text, name);
            }
        }

        #[test]
        fn no_script_causes_a_panic(script in "(\\PC|[\"'\\\\;$\n*/E-]){0,60}") {
            if let Ok(statements) = statements(&script) {
                prop_assert!(statements.iter().all(|statement| !statement.text.is_empty()));
            }
        }
    }
}
