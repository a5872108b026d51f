//! Splits a script of SQL into statements, as psql would read it.

/// One statement, without its semicolon and without comments before it.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement<'a> {
    /// As it stands in the script.
    pub text: &'a str,
    /// Its names and key words, in order; literals and punctuation are left out.
    pub words: Vec<Word>,
}

/// A name or a key word.
#[derive(Debug, PartialEq, Eq)]
pub struct Word {
    /// What it says: unquoted.
    pub text: String,
    /// Whether it stood in quotation marks, so that it can be no key word.
    pub quoted: bool,
}

impl Word {
    /// Tells whether it is this key word.
    pub(crate) fn is(&self, key_word: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(key_word)
    }
}

impl Statement<'_> {
    /// Tells whether the statement begins with these key words.
    pub(crate) fn begins_with(&self, key_words: &[&str]) -> bool {
        self.words.len() >= key_words.len()
            && key_words
                .iter()
                .zip(&self.words)
                .all(|(key_word, word)| word.is(key_word))
    }
}

/// The commands of psql itself that `pg_dumpall` writes, each alone on a line. They are dropped.
const DROPPED: [&str; 3] = ["\\restrict ", "\\unrestrict ", "\\connect "];

/// Splits a script. Any backslash outside of quotes and comments, but for the dropped commands, is a problem, and so are
/// anything that does not end, and whatever psql might read otherwise than this does: psql would run the rest of such a
/// line as a command of its own.
pub fn statements(script: &str) -> Result<Vec<Statement<'_>>, String> {
    if let Some(at) = script.find('\0') {
        return Err(format!(
            "a zero byte, where psql ends the line (at byte {at})"
        ));
    }
    let mut statements = Vec::new();
    let mut at = 0;
    // Where the statement begins, once anything of it was seen.
    let mut begin = None;
    let mut words = Vec::new();
    while at < script.len() {
        let rest = &script[at..];
        let piece = piece(rest).map_err(|problem| format!("{problem} (at byte {at})"))?;
        let length = piece.length();
        match piece {
            Piece::Space(_) => {}
            Piece::Command(_) if begin.is_none() => {}
            Piece::Command(_) => {
                return Err(format!("a command within a statement (at byte {at})"));
            }
            Piece::End => {
                if let Some(begin) = begin.take() {
                    let text = &script[begin..at];
                    let words = std::mem::take(&mut words);
                    statements.push(Statement { text, words });
                }
            }
            Piece::Word(_, word) => {
                begin.get_or_insert(at);
                words.push(word);
            }
            Piece::Other(_) => {
                begin.get_or_insert(at);
            }
        }
        at += length;
    }
    match begin {
        None => Ok(statements),
        Some(begin) => {
            let words: String = script[begin..].chars().take(40).collect();
            Err(format!("the last statement has no end: {words:?}"))
        }
    }
}

/// What stands at the beginning of a text, with its length in bytes.
enum Piece {
    /// White space or a comment.
    Space(usize),
    /// A dropped command with its line.
    Command(usize),
    /// A semicolon.
    End,
    /// A name or a key word.
    Word(usize, Word),
    /// A literal, an operator, a number.
    Other(usize),
}

impl Piece {
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

fn piece(text: &str) -> Result<Piece, String> {
    let mut characters = text.chars();
    let Some(first) = characters.next() else {
        return Ok(Piece::Space(0));
    };
    let second = characters.next();
    let line = text.find('\n').unwrap_or(text.len());
    Ok(match (first, second) {
        (c, _) if c.is_ascii_whitespace() => Piece::Space(1),
        // To psql, a carriage return ends a comment, too.
        ('-', Some('-')) => Piece::Space(text.find(['\n', '\r']).unwrap_or(text.len())),
        ('/', Some('*')) => Piece::Space(comment(text)?),
        ('\\', _) if DROPPED.iter().any(|command| text.starts_with(command)) => {
            Piece::Command(line)
        }
        ('\\', _) => return Err("a backslash outside of quotes".to_owned()),
        (';', _) => Piece::End,
        (':', Some(':')) => Piece::Other(2),
        (':', Some(c)) if continues_name(c) || matches!(c, '\'' | '"' | '{') => {
            return Err("a variable of psql".to_owned());
        }
        ('"', _) => {
            let length = quoted(text, '"', false)?;
            let text = text[1..length - 1].replace("\"\"", "\"");
            Piece::Word(length, Word { text, quoted: true })
        }
        ('\'', _) => Piece::Other(quoted(text, '\'', false)?),
        ('E' | 'e', Some('\'')) => Piece::Other(1 + quoted(&text[1..], '\'', true)?),
        ('$', _) => Piece::Other(dollar_quoted(text)?),
        (c, _) if begins_name(c) => {
            let length = text.find(|c| !continues_name(c)).unwrap_or(text.len());
            // The server folds names that are not quoted.
            let folded = text[..length].to_ascii_lowercase();
            Piece::Word(
                length,
                Word {
                    text: folded,
                    quoted: false,
                },
            )
        }
        (c, _) if c.is_ascii_digit() => Piece::Other(number(text)?),
        (c, _) => Piece::Other(c.len_utf8()),
    })
}

fn begins_name(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic() || !c.is_ascii()
}

fn continues_name(c: char) -> bool {
    begins_name(c) || c == '$' || c.is_ascii_digit()
}

/// Returns the length of a number with its letters, which begin no name, as in 1e5.
fn number(text: &str) -> Result<usize, String> {
    let ends = |c| !continues_name(c) || c == '$';
    let length = text.find(ends).unwrap_or(text.len());
    // Which of the letters psql takes for the number depends on its version, and of 1e--, all but the last hyphen.
    if ["$", "'", "--"]
        .iter()
        .any(|next| text[length..].starts_with(next))
    {
        return Err("a number that runs into a quote or a comment".to_owned());
    }
    Ok(length)
}

/// Returns the length of a comment; they nest.
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
    Err("a comment that does not end".to_owned())
}

/// Returns the length of a quoted text; doubled quotes belong to it.
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
    Err(format!("a text in {quote} that does not end"))
}

/// Returns the length of `$tag$ … $tag$`, or of a lone `$` with the digits of a parameter.
fn dollar_quoted(text: &str) -> Result<usize, String> {
    let tag_end = text[1..].find(|c| !continues_name(c) || c == '$');
    let tag = tag_end.and_then(|end| text.get(..end + 2));
    match tag {
        Some(tag) if tag.ends_with('$') && !tag[1..].starts_with(|c: char| c.is_ascii_digit()) => {
            let body = &text[tag.len()..];
            let end = body.find(tag);
            let end = end.ok_or_else(|| format!("a text in {tag} that does not end"))?;
            Ok(tag.len() + end + tag.len())
        }
        _ => Ok(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::{identifier, literal};
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
    fn names_are_unquoted_and_folded() {
        let statements = statements("Create Role \"a\"\"B\"; CREATE ROLE aB").unwrap_err();
        assert!(statements.contains("no end"), "{statements}");
        let statements = super::statements("Create Role \"a\"\"B\"; CREATE ROLE aB;").unwrap();
        assert!(statements[0].begins_with(&["CREATE", "ROLE"]));
        assert_eq!(statements[0].words[2].text, "a\"B");
        assert_eq!(statements[1].words[2].text, "ab");
    }

    #[test]
    fn what_psql_would_do_itself_is_refused() {
        for script in [
            "\\! id\n",
            "SELECT 1 \\gexec\n",
            "SELECT 1 \\restrict x\n;",
            "\\connectx\n",
            "SELECT 'a",
            "SELECT \"a",
            "SELECT $a$ $b$",
            "/* ",
            // psql 15 runs the commands of all but the last of these, and an older one may run that of the last.
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
        fn whatever_is_quoted_stays_in_its_statement(names in prop::collection::vec("\\PC{0,12}|[\"'\\\\;$\n-]{0,8}", 1..6)) {
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
        fn no_script_makes_the_reader_panic(script in "(\\PC|[\"'\\\\;$\n*/E-]){0,60}") {
            if let Ok(statements) = statements(&script) {
                prop_assert!(statements.iter().all(|statement| !statement.text.is_empty()));
            }
        }
    }
}
