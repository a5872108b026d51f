//! The parameters of a Query request: `Name=value`, and lists as `Name.member.1=value`.

use std::collections::BTreeMap;

use crate::standin::fault::{ApiError, ApiResult};

/// A Query request.
#[derive(Debug, Clone)]
pub(super) struct Query {
    parameters: BTreeMap<String, String>,
}

impl Query {
    /// Reads a form-encoded body.
    pub(super) fn parse(body: &[u8]) -> Self {
        let pairs = url::form_urlencoded::parse(body);
        Self {
            parameters: pairs.into_owned().collect(),
        }
    }

    /// Returns a parameter, or `None` if it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let value = self.parameters.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// Returns a required parameter.
    pub(super) fn required(&self, name: &str) -> ApiResult<&str> {
        self.text(name).ok_or_else(|| {
            let field = format!("{}{}", name[..1].to_lowercase(), &name[1..]);
            ApiError::validation(format!(
                "1 validation error detected: Value at '{field}' failed to satisfy constraint: Member must \
                 not be null"
            ))
        })
    }

    /// Returns a number, or `None` if it is missing.
    pub(super) fn number(&self, name: &str) -> ApiResult<Option<usize>> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            ApiError::new(
                "MalformedInput",
                format!("{name} {text:?} is not a whole number"),
            )
        })
    }

    /// Returns a flag, or `None` if it is missing.
    pub(super) fn flag(&self, name: &str) -> ApiResult<Option<bool>> {
        match self.text(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(text) => Err(ApiError::new(
                "MalformedInput",
                format!("{name} {text:?} is neither true nor false"),
            )),
        }
    }

    /// Returns the strings of a list.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let at = |number: usize| self.text(&format!("{name}.member.{number}"));
        (1..).map_while(at).map(str::to_owned).collect()
    }

    /// Returns the structures of a list, each as a query.
    pub(super) fn structures(&self, name: &str) -> Vec<Query> {
        let at = |number: usize| {
            let prefix = format!("{name}.member.{number}.");
            let parameters: BTreeMap<String, String> = self
                .parameters
                .iter()
                .filter_map(|(key, value)| {
                    Some((key.strip_prefix(&prefix)?.to_owned(), value.clone()))
                })
                .collect();
            (!parameters.is_empty()).then_some(Query { parameters })
        };
        (1..).map_while(at).collect()
    }

    /// Returns the page of `all` that `NextToken` names, with at most `MaxRecords` items, and the next token. The last
    /// page has no next token.
    pub(super) fn page<T>(
        &self,
        all: Vec<T>,
        default: usize,
    ) -> ApiResult<(Vec<T>, Option<String>)> {
        let size = self.number("MaxRecords")?.unwrap_or(default);
        if !(1..=100).contains(&size) {
            return Err(ApiError::validation(format!(
                "MaxRecords {size} is not between 1 and 100"
            )));
        }
        let start = match self.text("NextToken") {
            None => 0,
            Some(token) => token
                .strip_prefix("page-")
                .and_then(|start| start.parse::<usize>().ok())
                .filter(|start| *start < all.len())
                .ok_or_else(|| {
                    ApiError::new("InvalidNextToken", "The NextToken value is not valid.")
                })?,
        };
        let end = (start + size).min(all.len());
        let next = (end < all.len()).then(|| format!("page-{end}"));
        Ok((all.into_iter().skip(start).take(size).collect(), next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_structures_are_read_in_order() {
        let query = Query::parse(
            b"Names.member.1=a&Names.member.2=b&Filters.member.1.Name=tag-key&Filters.member.1.Values.member.1=k",
        );
        assert_eq!(query.list("Names"), ["a", "b"]);
        let filters = query.structures("Filters");
        assert_eq!(filters[0].text("Name"), Some("tag-key"));
        assert_eq!(filters[0].list("Values"), ["k"]);
        assert_eq!(filters.len(), 1);
    }

    #[test]
    fn all_pages_together_have_all_items() {
        let query = |text: &str| Query::parse(text.as_bytes());
        let all: Vec<u32> = (0..5).collect();
        let (first, next) = query("MaxRecords=3").page(all.clone(), 50).unwrap();
        let token = next.unwrap();
        let rest = query(&format!("MaxRecords=3&NextToken={token}"));
        let (second, next) = rest.page(all.clone(), 50).unwrap();
        assert_eq!([first, second].concat(), all);
        assert_eq!(next, None);
        let error = query("NextToken=page-5").page(all, 50).unwrap_err();
        assert_eq!(error.code, "InvalidNextToken");
    }
}
