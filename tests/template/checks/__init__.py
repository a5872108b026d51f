"""The project's own checks of the template. Each takes a template and returns its findings, one sentence each."""

from checks import documents, events, monitoring, node, numbers, permissions

ALL = [
    events.patterns,
    events.strangers,
    events.schedules,
    documents.parameters,
    documents.shape,
    numbers.environment,
    numbers.timing,
    permissions.exact,
    permissions.known,
    node.default_settings,
    monitoring.alarms,
    monitoring.dashboard,
    monitoring.queries,
]
