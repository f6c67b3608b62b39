//! What `*`, `?`, `[..]` and `**` mean in a name, made into a regular expression.
//!
//! One meaning for keys in URLs and for filters. It is made here and not by `globset`, since that matches bytes: its
//! `?` is half of an `é`, and its `[!a]` crosses a `/`. The expressions match in time that is linear in the
//! name, whatever the pattern, because patterns come from anybody.

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;

/// A pattern that was read and makes sense.
#[derive(Debug, Clone)]
pub(super) struct Glob {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// This character.
    Literal(char),
    /// `?`: one character, not `/`.
    One,
    /// `*`: any number of characters, none of them `/`.
    Some,
    /// `**`: anything.
    Anything,
    /// `**/` where a component begins: any number of folders, none as well.
    Folders,
    /// `[..]`: one character of a set, never `/`.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Reads `pattern`; an error says what is wrong with it.
    pub(super) fn parse(pattern: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut rest = pattern.chars().peekable();
        while let Some(c) = rest.next() {
            let token = match c {
                '?' => Token::One,
                '*' => stars(&mut rest, matches!(tokens.last(), None | Some(Token::Literal('/')))),
                '[' => class(&mut rest)?,
                '\\' => Token::Literal(escaped(&mut rest)),
                c => Token::Literal(c),
            };
            tokens.push(token);
        }
        Ok(Self { tokens })
    }

    /// What every match begins with; all of it where there is no wildcard.
    pub(super) fn prefix(&self) -> String {
        let literals = self.tokens.iter().map_while(|token| match token {
            Token::Literal(c) => Some(*c),
            _ => None,
        });
        literals.collect()
    }

    /// Whether there is a wildcard.
    pub(super) fn is_glob(&self) -> bool {
        self.tokens.iter().any(|token| !matches!(token, Token::Literal(_)))
    }

    /// The body of a regular expression over bytes, without anchors, under the flag `s`. What stands for many characters goes by
    /// bytes, which makes it small: in a name, which is UTF-8, what follows can only begin where a character does.
    pub(super) fn regex(&self) -> String {
        let mut regex = String::new();
        for token in &self.tokens {
            match token {
                Token::Literal(c) => push_literal(&mut regex, *c),
                Token::One => regex.push_str("[^/]"),
                Token::Some => regex.push_str("(?-u:[^/]*)"),
                Token::Anything => regex.push_str("(?-u:.*)"),
                Token::Folders => regex.push_str("(?:(?-u:.*)/)?"),
                Token::Class { negated, ranges } => {
                    regex.push_str(if *negated { "[^/" } else { "[[" });
                    for (first, last) in ranges {
                        push_literal(&mut regex, *first);
                        regex.push('-');
                        push_literal(&mut regex, *last);
                    }
                    regex.push_str(if *negated { "]" } else { "]&&[^/]]" });
                }
            }
        }
        regex
    }
}

/// By its number, so that no character means anything, in a set as outside of one.
fn push_literal(regex: &mut String, c: char) {
    if c.is_ascii_alphanumeric() || c == '/' {
        regex.push(c);
    } else {
        let _ = write!(regex, "\\x{{{:x}}}", u32::from(c));
    }
}

/// What follows a first `*`.
fn stars(rest: &mut Peekable<Chars<'_>>, begins_component: bool) -> Token {
    let mut count = 1;
    while rest.next_if_eq(&'*').is_some() {
        count += 1;
    }
    if count == 1 {
        Token::Some
    } else if begins_component && rest.next_if_eq(&'/').is_some() {
        Token::Folders
    } else {
        Token::Anything
    }
}

/// What a backslash stands for: what follows, where that would mean something, else itself. Keys from other systems hold
/// backslashes, and such a key should be found as it is written.
fn escaped(rest: &mut Peekable<Chars<'_>>) -> char {
    rest.next_if(|c| matches!(c, '*' | '?' | '[' | ']' | '\\')).unwrap_or('\\')
}

/// What follows a `[`.
fn class(rest: &mut Peekable<Chars<'_>>) -> Result<Token, String> {
    let unclosed = || "a [ is not closed".to_owned();
    let negated = rest.next_if(|c| matches!(c, '!' | '^')).is_some();
    let mut ranges: Vec<(char, char)> = Vec::new();
    let mut is_first = true;
    loop {
        let first = match rest.next().ok_or_else(unclosed)? {
            ']' if !is_first => break,
            '[' if rest.peek() == Some(&':') => {
                return Err("sets by name such as [:alpha:] are not known".to_owned());
            }
            '\\' => in_class(rest).ok_or_else(unclosed)?,
            c => c,
        };
        is_first = false;
        let mut ahead = rest.clone();
        let is_range = ahead.next() == Some('-') && ahead.next().is_some_and(|c| c != ']');
        let last = if is_range {
            rest.next();
            match rest.next().ok_or_else(unclosed)? {
                '\\' => in_class(rest).ok_or_else(unclosed)?,
                c => c,
            }
        } else {
            first
        };
        if first > last {
            return Err(format!("the range {first}-{last} is empty"));
        }
        if first == '/' || last == '/' {
            return Err("a set in [ ] cannot hold a slash".to_owned());
        }
        ranges.push((first, last));
    }
    Ok(Token::Class { negated, ranges })
}

/// What a backslash in a set stands for: whatever follows.
fn in_class(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    rest.next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::bytes::Regex;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        let glob = Glob::parse(pattern).expect("sound");
        let regex = Regex::new(&format!("(?s)\\A{}\\z", glob.regex())).expect("sound");
        regex.is_match(name.as_bytes())
    }

    #[test]
    fn wildcards_mean_what_the_table_says() {
        for (pattern, yes, no) in [
            ("*.gz", &["a.gz", ".gz", "é\n.gz"][..], &["a/b.gz", "a.gzip", "/a.gz"][..]),
            ("a?c", &["abc", "aéc", "a\nc", "a🦀c"], &["a/c", "ac", "abbc"]),
            ("2026-*/*.gz", &["2026-11/a.gz"], &["2026-11/x/a.gz", "2025-11/a.gz"]),
            ("a/**", &["a/", "a/b", "a/b/c", "a//"], &["a", "ab"]),
            ("a/**/b", &["a/b", "a/x/b", "a/x/y/b", "a//b"], &["a/xb", "ab", "a/b/c"]),
            ("**/b", &["b", "a/b", "/b", "a/c/b"], &["ab", "b/a"]),
            ("a**z", &["az", "a/b/z", "abz"], &["a/zb"]),
            ("**", &["", "a", "a/b\n"], &[]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x", "/x"]),
            ("[!a-c]x", &["dx", "éx"], &["ax", "/x", "x"]),
            ("[^a]", &["b"], &["a", "/"]),
            ("[]a]", &["]", "a"], &["b"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[+-9]", &["+", "0", "."], &["/"]),
            ("[a\\]\\-z]", &["a", "]", "-", "z"], &["b", "\\"]),
            ("[&&~]", &["&", "~"], &["a"]),
            ("\\*\\?\\[\\\\", &["*?[\\"], &["a?[\\"]),
            ("a\\b\\", &["a\\b\\"], &["ab"]),
            ("a.b{c}(d)|e+$^", &["a.b{c}(d)|e+$^"], &["axb"]),
            ("x]", &["x]"], &["x"]),
        ] {
            for name in yes {
                assert!(matches(pattern, name), "{pattern} should match {name:?}");
            }
            for name in no {
                assert!(!matches(pattern, name), "{pattern} should not match {name:?}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        for (pattern, why) in [
            ("a[b", "a [ is not closed"),
            ("[]", "a [ is not closed"),
            ("[a\\", "a [ is not closed"),
            ("[z-a]", "the range z-a is empty"),
            ("[a/]", "a set in [ ] cannot hold a slash"),
            ("[[:alpha:]]", "sets by name such as [:alpha:] are not known"),
        ] {
            assert_eq!(Glob::parse(pattern).expect_err(pattern), why, "{pattern}");
        }
    }

    /// The meaning once more, as slowly and plainly as can be.
    fn naive(pattern: &[char], name: &[char], at_component: bool) -> bool {
        let Some(first) = pattern.first() else { return name.is_empty() };
        let rests = |rest: &[char], crosses: bool| {
            (0..=name.len())
                .take_while(|end| crosses || !name[..*end].contains(&'/'))
                .any(|end| naive(rest, &name[end..], false))
        };
        match first {
            '*' if pattern.starts_with(&['*', '*']) => {
                let run = pattern.iter().take_while(|c| **c == '*').count();
                let rest = &pattern[run..];
                if at_component && rest.first() == Some(&'/') {
                    let rest = &rest[1..];
                    naive(rest, name, false)
                        || (0..name.len())
                            .any(|end| name[end] == '/' && naive(rest, &name[end + 1..], false))
                } else {
                    rests(rest, true)
                }
            }
            '*' => rests(&pattern[1..], false),
            '?' => {
                name.first().is_some_and(|c| *c != '/') && naive(&pattern[1..], &name[1..], false)
            }
            c => name.first() == Some(c) && naive(&pattern[1..], &name[1..], *c == '/'),
        }
    }

    proptest! {
        #[test]
        fn every_match_is_the_plain_meanings(pattern in "[ab/é*?]{0,8}", name in "[ab/é]{0,8}") {
            let chars: Vec<char> = pattern.chars().collect();
            let expected = naive(&chars, &name.chars().collect::<Vec<_>>(), true);
            prop_assert_eq!(matches(&pattern, &name), expected, "{} {:?}", pattern, name);
        }

        #[test]
        fn whatever_is_read_makes_an_expression(pattern in "\\PC{0,40}") {
            if let Ok(glob) = Glob::parse(&pattern) {
                Regex::new(&format!("(?s)\\A{}\\z", glob.regex())).expect("an expression");
            }
        }
    }
}
