"""The project's own checks of the template. Each takes a template and returns its findings, one sentence each."""

from checks import documents, events, group, monitoring, node, numbers, permissions

ALL = [
    events.patterns,
    events.strangers,
    events.schedules,
    documents.parameters,
    documents.shape,
    numbers.environment,
    numbers.timing,
    numbers.schedules,
    permissions.exact,
    permissions.known,
    node.default_settings,
    group.one_at_a_time,
    group.abandoned_launches,
    group.closed,
    group.deployments,
    monitoring.alarms,
    monitoring.dashboard,
    monitoring.queries,
]
