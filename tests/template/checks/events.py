"""Rules: each event reaches the rule that is for it, and nothing else does."""

import json

from patterns import matches
from template import ROOT, Template

# Which rule each file of events/ is for, by the beginning of its name; None for what an operator sends by hand.
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
# What a schedule sends does not go through a pattern.
SCHEDULED = ("schedule-", "sweep")


def events():
    return {file.stem: json.loads(file.read_text()) for file in sorted((ROOT / "events").glob("*.json"))}


def rules(template):
    return {n: r for n, r in template.resolved().of_type("AWS::Events::Rule").items() if "EventPattern" in r}


def patterns(template: Template):
    """Every event reaches the rule that is for it, and no other; every rule has an event that reaches it."""
    found, reached = [], set()
    for name, event in events().items():
        if name.startswith(SCHEDULED):
            expected = set()
        else:
            prefixes = [prefix for prefix in TRIGGERS if name.startswith(prefix)]
            if not prefixes:
                found.append(f"events/{name}.json: the tests do not know which rule it is for")
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
        reached |= triggered
    found += [f"no file of events/ triggers {rule}" for rule in rules(template).keys() - reached]
    return found


def strangers(template: Template):
    """Events that look alike and concern others reach no rule."""
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
        f"{rule} takes an event that is not Rekindle's: {json.dumps(event['detail'])}"
        for rule, properties in rules(template).items()
        for event in similar
        if matches(properties["EventPattern"], event)
    ]


def schedules(template: Template):
    """Both functions sweep every minute, and ticks come as the parameter says."""
    found = []
    for minutes, expression in ((15, "rate(15 minutes)"), (1, "rate(1 minute)"), (60, "rate(60 minutes)")):
        scheduled = template.resolved(BackupMinutes=minutes).of_type("AWS::Events::Rule")
        if scheduled["BackupFunctionSchedule"]["ScheduleExpression"] != expression:
            found.append(f"{minutes} minutes become {scheduled['BackupFunctionSchedule']['ScheduleExpression']}")
        for rule in ("BackupFunctionSweep", "RestoreFunctionSweep"):
            if scheduled[rule]["ScheduleExpression"] != "rate(1 minute)":
                found.append(f"{rule} does not come every minute")
            sent = json.loads(scheduled[rule]["Targets"][0]["Input"])
            if sent != events()["sweep"]:
                found.append(f"{rule} sends {sent}, not events/sweep.json")
    return found
