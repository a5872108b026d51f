//! The XML answers of the Query protocol.

use quick_xml::escape::escape;
use uuid::Uuid;

use super::model::{Activity, Group};
use crate::standin::clock::milliseconds;
use crate::standin::fault::ApiError;

/// The XML namespace of Auto Scaling's answers.
pub(super) const NAMESPACE: &str = "http://autoscaling.amazonaws.com/doc/2011-01-01/";

/// A sequence of XML elements.
#[derive(Debug, Clone, Default)]
pub struct Xml(String);

impl Xml {
    /// Adds an element with text.
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

    /// Adds text without an element, for an item of a list of strings.
    #[must_use]
    pub fn bare_text(mut self, text: &str) -> Self {
        self.0.push_str(&escape(text));
        self
    }

    /// Returns whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an element with text, or nothing for `None`.
    #[must_use]
    pub fn optional(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// Adds an element with other elements in it.
    #[must_use]
    pub fn element(mut self, name: &str, inner: &Xml) -> Self {
        for part in ["<", name, ">", &inner.0, "</", name, ">"] {
            self.0.push_str(part);
        }
        self
    }

    /// Adds a list with each item in an element `member`.
    #[must_use]
    pub fn list<T>(self, name: &str, items: &[T], item: impl Fn(&T) -> Xml) -> Self {
        let members = items.iter().fold(Xml::default(), |members, one| {
            members.element("member", &item(one))
        });
        self.element(name, &members)
    }
}

/// Returns the whole answer of an action with this result.
pub fn response(action: &str, namespace: &str, result: &Xml) -> String {
    format!(
        "<{action}Response xmlns=\"{namespace}\"><{action}Result>{}</{action}Result><ResponseMetadata>\
         <RequestId>{}</RequestId></ResponseMetadata></{action}Response>",
        result.0,
        Uuid::new_v4()
    )
}

/// Returns an error answer.
pub fn error_response(error: &ApiError) -> String {
    let side = if error.status < 500 {
        "Sender"
    } else {
        "Receiver"
    };
    let inner = Xml::default()
        .text("Type", side)
        .text("Code", &error.code)
        .text("Message", &error.message);
    let body = Xml::default()
        .element("Error", &inner)
        .text("RequestId", Uuid::new_v4());
    format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\">{}</ErrorResponse>",
        body.0
    )
}

/// Returns an activity as XML.
pub(super) fn activity_xml(activity: &Activity, group: &Group) -> Xml {
    let details = format!(
        r#"{{"Subnet ID":"subnet-0123456789abcdef0","Availability Zone":"{}"}}"#,
        group.zone
    );
    Xml::default()
        .text("ActivityId", &activity.id)
        .text("AutoScalingGroupName", &group.name)
        .text("AutoScalingGroupARN", &group.arn)
        .text("Description", &activity.description)
        .text("Cause", &activity.cause)
        .text("StartTime", milliseconds(activity.started))
        .optional("EndTime", activity.ended.map(milliseconds))
        .text("StatusCode", activity.status)
        .optional("StatusMessage", activity.message.as_ref())
        .text("Progress", activity.progress)
        .text("Details", details)
}
