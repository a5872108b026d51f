"""The project's own checks. Each takes a template and returns its findings, one sentence each."""

from checks import documents, events, group, monitoring, node, numbers, permissions

ALL = [
    events.patterns,
    events.foreign_events,
    events.schedules,
    documents.parameters,
    documents.shape,
    numbers.environment,
    numbers.timing,
    numbers.schedules,
    permissions.minimal,
    permissions.known,
    node.default_settings,
    group.one_at_a_time,
    group.default_results,
    group.access,
    group.deployments,
    monitoring.alarms,
    monitoring.dashboard,
    monitoring.queries,
]
