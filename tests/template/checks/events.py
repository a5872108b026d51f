"""Rules: each event reaches exactly the rule that is meant for it."""

import json

from patterns import matches
from template import ROOT, Template

# The rule that each file of events/ must trigger, by the beginning of its name. `None`: an operator sends it by hand.
TRIGGERS = {
    "accept-quarantined": None,
    "adopt": None,
    "backup-now": None,
    "list-backups": None,
    "pin": None,
    "reject-quarantined": None,
    "restore-backup": None,
    "restore-backup-before": None,
    "resume": None,
    "unpin": None,
    "backup-": "BackupFunctionBackupFinished",
    "restore-": "RestoreFunctionRestoreFinished",
    "launch": "RestoreFunctionInstanceLaunching",
    "terminate": "BackupFunctionInstanceTerminating",
}
# Events of schedules, which have no pattern.
SCHEDULED = ("schedule-", "sweep")


def events():
    """Returns the events of events/ by file name."""
    return {file.stem: json.loads(file.read_text()) for file in sorted((ROOT / "events").glob("*.json"))}


def rules(template):
    """Returns the rules with an event pattern."""
    return {n: r for n, r in template.resolved().of_type("AWS::Events::Rule").items() if "EventPattern" in r}


def patterns(template: Template):
    """Every event triggers its rule and no other one, and every rule has an event that triggers it."""
    found, seen = [], set()
    for name, event in events().items():
        if name.startswith(SCHEDULED):
            expected = set()
        else:
            prefixes = [prefix for prefix in TRIGGERS if name.startswith(prefix)]
            if not prefixes:
                found.append(f"events/{name}.json: TRIGGERS has no rule for this event; add it")
                continue
            rule = TRIGGERS[prefixes[0]]
            expected = {rule} if rule else set()
        triggered = set()
        for rule, properties in rules(template).items():
            try:
                if matches(properties["EventPattern"], event):
                    triggered.add(rule)
            except ValueError as error:
                found.append(f"{rule}: {error}")
        if triggered != expected:
            found.append(f"events/{name}.json triggers {sorted(triggered)}, not {sorted(expected)}")
        seen |= triggered
    found += [f"no file of events/ triggers {rule}" for rule in rules(template).keys() - seen]
    return found


def foreign_events(template: Template):
    """Similar events that do not concern Rekindle trigger no rule."""
    similar = []
    for event in events().values():
        detail = event.get("detail")
        if not isinstance(detail, dict) or not detail:
            continue
        other_source = {**event, "source": "com.example"}
        other_type = {**event, "detail-type": event["detail-type"].replace("Invocation ", "").replace("Lifecycle", "")}
        other_hook = {**event, "detail": {**detail, "LifecycleHookName": "drain", "document-name": "AWS-RunShellScript"}}
        running = {**event, "detail": {**detail, "status": "InProgress", "LifecycleHookName": "drain"}}
        similar += [other_source, other_type, other_hook, running]
    return [
        f"{rule} matches an event that is not Rekindle's: {json.dumps(event['detail'])}"
        for rule, properties in rules(template).items()
        for event in similar
        if matches(properties["EventPattern"], event)
    ]


def schedules(template: Template):
    """Both functions sweep every minute, and ticks follow BackupMinutes."""
    found = []
    for minutes, expression in ((15, "rate(15 minutes)"), (1, "rate(1 minute)"), (60, "rate(60 minutes)")):
        scheduled = template.resolved(BackupMinutes=minutes).of_type("AWS::Events::Rule")
        if scheduled["BackupFunctionSchedule"]["ScheduleExpression"] != expression:
            found.append(f"BackupMinutes={minutes} results in {scheduled['BackupFunctionSchedule']['ScheduleExpression']}")
        for rule in ("BackupFunctionSweep", "RestoreFunctionSweep"):
            if scheduled[rule]["ScheduleExpression"] != "rate(1 minute)":
                found.append(f"{rule} does not run every minute")
            sent = json.loads(scheduled[rule]["Targets"][0]["Input"])
            if sent != events()["sweep"]:
                found.append(f"{rule} sends {sent}, not events/sweep.json")
    return found
