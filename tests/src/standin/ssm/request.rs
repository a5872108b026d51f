//! Reads the common parts of JSON 1.1 requests: required fields, limits and pages.

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::standin::fault::{ApiError, ApiResult};

/// Returns a required string.
pub(super) fn text<'a>(request: &'a Value, field: &str) -> ApiResult<&'a str> {
    let value = request[field].as_str().filter(|text| !text.is_empty());
    value.ok_or_else(|| {
        let name = format!("{}{}", field[..1].to_lowercase(), &field[1..]);
        validation(format!(
            "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must \
             not be null"
        ))
    })
}

/// Returns a number within its bounds, or the default if it is missing.
pub(super) fn whole(
    request: &Value,
    field: &str,
    bounds: RangeInclusive<u64>,
    default: u64,
) -> ApiResult<usize> {
    let number = match &request[field] {
        Value::Null => Some(default),
        value => value.as_u64().filter(|number| bounds.contains(number)),
    };
    let number = number.and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| {
        validation(format!(
            "{field} {} is not between {} and {}",
            request[field],
            bounds.start(),
            bounds.end()
        ))
    })
}

/// Returns the strings of a list, or an empty list if it is missing.
pub(super) fn texts(request: &Value, field: &str) -> Vec<String> {
    let items = request[field].as_array();
    let items = items.into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// Returns the page of `all` that `NextToken` names, and the next token. The last page has no next token.
pub(super) fn page(
    all: Vec<Value>,
    size: usize,
    request: &Value,
) -> ApiResult<(Vec<Value>, Option<String>)> {
    let start = match request["NextToken"].as_str() {
        None | Some("") => 0,
        Some(token) => token
            .strip_prefix("page-")
            .and_then(|start| start.parse::<usize>().ok())
            .ok_or_else(|| ApiError::new("InvalidNextToken", "The specified token isn't valid."))?,
    };
    let next = (start + size < all.len()).then(|| format!("page-{}", start + size));
    Ok((all.into_iter().skip(start).take(size).collect(), next))
}

/// Returns SSM's error for an invalid request.
pub(super) fn validation(message: impl Into<String>) -> ApiError {
    ApiError::new("ValidationException", message)
}
