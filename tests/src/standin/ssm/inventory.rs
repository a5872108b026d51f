//! `DescribeInstanceInformation`: the registered agents and the times of their last pings.

use serde_json::{Value, json};

use super::command::seconds;
use super::request::{page, texts, validation, whole};
use super::{Agent, Ssm};
use crate::lock::lock;
use crate::standin::clock;
use crate::standin::fault::{ApiError, ApiResult};

/// Answers `DescribeInstanceInformation`.
pub(super) fn describe(ssm: &Ssm, request: &Value) -> ApiResult<Value> {
    let size = whole(request, "MaxResults", 5..=50, 10)?;
    let mut filters: Vec<(String, Vec<String>)> = Vec::new();
    for (list, key, values) in [
        ("Filters", "Key", "Values"),
        ("InstanceInformationFilterList", "key", "valueSet"),
    ] {
        for filter in request[list].as_array().into_iter().flatten() {
            let key = filter[key].as_str().unwrap_or_default().to_owned();
            filters.push((key, texts(filter, values)));
        }
    }
    if filters.iter().any(|(_, values)| values.is_empty()) {
        return Err(validation("a filter has no values"));
    }
    let state = lock(&ssm.state);
    let mut found = Vec::new();
    for agent in state.agents.values() {
        let mut holds = true;
        for (key, values) in &filters {
            let is = |actual: &str| values.iter().any(|value| value == actual);
            holds &= match key.as_str() {
                "InstanceIds" => is(agent.node.id()),
                "PingStatus" => is(ping_status(ssm, agent)),
                "PlatformTypes" => is("Linux"),
                "ResourceType" => is("EC2Instance"),
                "AgentVersion" => is(AGENT_VERSION),
                key => match key.strip_prefix("tag:") {
                    Some(name) => agent
                        .tags
                        .iter()
                        .any(|tag| tag.key == name && is(&tag.value)),
                    None => {
                        return Err(ApiError::new(
                            "InvalidFilterKey",
                            format!("The filter key {key:?} isn't valid."),
                        ));
                    }
                },
            };
        }
        if holds {
            found.push(json(ssm, agent));
        }
    }
    let (list, next) = page(found, size, request)?;
    Ok(json!({"InstanceInformationList": list, "NextToken": next}))
}

const AGENT_VERSION: &str = "3.3.2746.0";

fn ping_status(ssm: &Ssm, agent: &Agent) -> &'static str {
    let stale = ssm.pace.clock.after(agent.last_ping, ssm.pace.stale);
    if clock::now() <= stale {
        "Online"
    } else {
        "ConnectionLost"
    }
}

fn json(ssm: &Ssm, agent: &Agent) -> Value {
    json!({
        "InstanceId": agent.node.id(),
        "PingStatus": ping_status(ssm, agent),
        "LastPingDateTime": seconds(agent.last_ping),
        "AgentVersion": AGENT_VERSION,
        "IsLatestVersion": true,
        "PlatformType": "Linux",
        "PlatformName": "Debian GNU/Linux",
        "PlatformVersion": "12",
        "ResourceType": "EC2Instance",
        "RegistrationDate": seconds(agent.registered),
        "IPAddress": "127.0.0.1",
        "ComputerName": format!("{}.local", agent.node.id()),
    })
}
