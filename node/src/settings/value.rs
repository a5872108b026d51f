//! Single values and tables of the settings. Every method that finds a problem records it and returns `None`, so that
//! reading goes on and finds the next one.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problems::Problems;

/// The accepted numbers of seconds: up to a day.
const SECONDS: RangeInclusive<u32> = 1..=86_400;

/// One value, with the key that messages name.
#[derive(Clone, Copy)]
pub(super) struct Value<'t, 'd> {
    key: &'static str,
    spanned: &'t Spanned<DeValue<'d>>,
    problems: &'t Problems<'t>,
}

impl<'t> Value<'t, '_> {
    /// Records a problem with this value.
    pub(super) fn refuse(self, problem: impl fmt::Display) {
        let key = self.key;
        self.problems
            .add(&self.spanned.span(), format_args!("{key}: {problem}"));
    }

    fn expected(self, expected: &str) {
        let found = self.spanned.get_ref().type_str();
        self.refuse(format_args!("expected {expected}, found {found}"));
    }

    pub(super) fn string(self) -> Option<&'t str> {
        let text = self.spanned.get_ref().as_str();
        if text.is_none() {
            self.expected("a string in quotes");
        }
        text
    }

    /// Returns a string that a rule accepts.
    pub(super) fn checked<T>(self, rule: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.string()?;
        rule(text)
            .map_err(|problem| self.refuse(format_args!("{text:?} {problem}")))
            .ok()
    }

    /// Returns the strings of a list. The rule gets each string with those before it.
    pub(super) fn list<T>(
        self,
        expected: &str,
        rule: impl Fn(&str, &[T]) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let Some(items) = self.spanned.get_ref().as_array() else {
            self.expected(expected);
            return None;
        };
        let mut all = Vec::new();
        for spanned in items {
            let item = Value { spanned, ..self };
            all.extend(item.checked(|text| rule(text, &all)));
        }
        Some(all)
    }

    /// Returns the strings of a list that has at least one item.
    pub(super) fn filled_list<T>(
        self,
        expected: &str,
        remedy: &str,
        rule: impl Fn(&str, &[T]) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let all = self.list(expected, rule)?;
        let items = self.spanned.get_ref().as_array();
        if items.is_some_and(|items| items.iter().next().is_none()) {
            self.refuse(format_args!("the list is empty: {remedy}"));
        }
        Some(all)
    }

    pub(super) fn integer(self, range: &RangeInclusive<u32>) -> Option<u32> {
        let Some(integer) = self.spanned.get_ref().as_integer() else {
            self.expected("a whole number");
            return None;
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        let valid = number.filter(|number| range.contains(number));
        if valid.is_none() {
            self.refuse(format_args!(
                "{} is not between {} and {}",
                integer.as_str(),
                range.start(),
                range.end()
            ));
        }
        valid
    }

    /// Returns the value of one of these words.
    pub(super) fn one_of<T: Copy>(self, words: &[(&str, T)]) -> Option<T> {
        self.checked(|text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, meaning)| *meaning).ok_or_else(|| {
                let known: Vec<String> =
                    words.iter().map(|(word, _)| format!("{word:?}")).collect();
                format!("is not one of {}", known.join(", "))
            })
        })
    }
}

/// One table, with the keys that were read from it: all other keys are refused.
pub(super) struct Section<'t, 'd> {
    table: &'t DeTable<'d>,
    /// Empty for the top level.
    name: &'static str,
    span: Range<usize>,
    known: RefCell<Vec<&'static str>>,
    problems: &'t Problems<'t>,
}

impl<'t, 'd> Section<'t, 'd> {
    /// Returns the top level of a document.
    pub(super) fn top(table: &'t DeTable<'d>, problems: &'t Problems<'t>) -> Self {
        // A key that is missing at the top level is reported for the first line.
        Self::new(table, "", 0..0, problems)
    }

    fn new(
        table: &'t DeTable<'d>,
        name: &'static str,
        span: Range<usize>,
        problems: &'t Problems<'t>,
    ) -> Self {
        Self {
            table,
            name,
            span,
            known: RefCell::default(),
            problems,
        }
    }

    /// Records a problem with this table.
    pub(super) fn refuse(&self, problem: &str) {
        self.problems.add(&self.span, problem);
    }

    pub(super) fn optional(&self, key: &'static str) -> Option<Value<'t, 'd>> {
        self.known.borrow_mut().push(key);
        let spanned = self.table.get(key)?;
        Some(Value {
            key,
            spanned,
            problems: self.problems,
        })
    }

    pub(super) fn required(&self, key: &'static str) -> Option<Value<'t, 'd>> {
        let value = self.optional(key);
        if value.is_none() {
            let place = match self.name {
                "" => String::new(),
                name => format!(" in [{name}]"),
            };
            self.refuse(&format!("{key} is missing{place}: set it"));
        }
        value
    }

    /// Returns a number of seconds, or the default.
    pub(super) fn seconds(&self, key: &'static str, default: u32) -> u32 {
        self.optional(key)
            .and_then(|value| value.integer(&SECONDS))
            .unwrap_or(default)
    }

    /// Reads a table, and then refuses the keys that were not read.
    pub(super) fn optional_section<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Self) -> T,
    ) -> Option<T> {
        let value = self.optional(key)?;
        let Some(table) = value.spanned.get_ref().as_table() else {
            value.expected("a table");
            return None;
        };
        let section = Self::new(table, key, value.spanned.span(), self.problems);
        let read = read(&section);
        section.refuse_other_keys();
        Some(read)
    }

    pub(super) fn required_section<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Self) -> Option<T>,
    ) -> Option<T> {
        if self.table.get(key).is_none() {
            self.refuse(&format!("[{key}] is missing: add it"));
        }
        self.optional_section(key, read).flatten()
    }

    /// Refuses every key that was not read.
    pub(super) fn refuse_other_keys(&self) {
        let known = self.known.borrow();
        let place = match self.name {
            "" => "at the top level".to_owned(),
            name => format!("in [{name}]"),
        };
        for key in self.table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                let (key, span) = (key.get_ref(), key.span());
                let known = known.join(", ");
                self.problems.add(
                    &span,
                    format_args!("unknown key {key:?} {place}: the known keys are {known}"),
                );
            }
        }
    }
}
