//! Writes the XML answers of the Query protocol.

use quick_xml::escape::escape;
use uuid::Uuid;

use crate::standin::fault::ApiError;

/// The XML namespace of Auto Scaling's answers.
pub(super) const NAMESPACE: &str = "http://autoscaling.amazonaws.com/doc/2011-01-01/";

/// A sequence of XML elements.
#[derive(Debug, Clone, Default)]
pub struct Xml(String);

impl Xml {
    /// Adds an element with text in it.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers pass numbers, states and references alike"
    )]
    pub fn text(mut self, name: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        let line = format!("<{name}>{}</{name}>", escape(value.as_str()));
        self.0.push_str(&line);
        self
    }

    /// Adds bare text: an item of a list of strings.
    #[must_use]
    pub fn words(mut self, text: &str) -> Self {
        self.0.push_str(&escape(text));
        self
    }

    /// Tells whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an element with text in it, where there is some.
    #[must_use]
    pub fn optional(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// Adds an element around others.
    #[must_use]
    pub fn element(mut self, name: &str, inner: &Xml) -> Self {
        for part in ["<", name, ">", &inner.0, "</", name, ">"] {
            self.0.push_str(part);
        }
        self
    }

    /// Adds a list, each item a `member`.
    #[must_use]
    pub fn list<T>(self, name: &str, items: &[T], item: impl Fn(&T) -> Xml) -> Self {
        let members = items.iter().fold(Xml::default(), |members, one| {
            members.element("member", &item(one))
        });
        self.element(name, &members)
    }
}

/// Wraps the result of `action` as a whole answer.
pub fn response(action: &str, namespace: &str, result: &Xml) -> String {
    format!(
        "<{action}Response xmlns=\"{namespace}\"><{action}Result>{}</{action}Result><ResponseMetadata>\
         <RequestId>{}</RequestId></ResponseMetadata></{action}Response>",
        result.0,
        Uuid::new_v4()
    )
}

/// Writes an error answer.
pub fn error_response(fault: &ApiError) -> String {
    let side = if fault.status < 500 {
        "Sender"
    } else {
        "Receiver"
    };
    let error = Xml::default()
        .text("Type", side)
        .text("Code", &fault.code)
        .text("Message", &fault.message);
    let body = Xml::default()
        .element("Error", &error)
        .text("RequestId", Uuid::new_v4());
    format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\">{}</ErrorResponse>",
        body.0
    )
}
