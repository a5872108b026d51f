"""Environment variables and timing: the template and the code have the same values."""

import re

import rust_source
from template import BUCKET, NODE, ROOT, Resolution, Template


def environment(template: Template):
    """The template sets exactly the environment variables that the functions read."""
    found = []
    read = set(rust_source.environment_names().values())
    for name, function in template.resolved().of_type("AWS::Lambda::Function").items():
        given = function["Environment"]["Variables"]
        found += [f"{name} lacks {missing}" for missing in sorted(read - given.keys())]
        found += [f"{name} has {surplus}, which nothing reads" for surplus in sorted(given.keys() - read)]
        found += [f"{name}: {variable} is empty" for variable, value in given.items() if not value]
    return found


def schedules(template: Template):
    """For each BackupMinutes, CloudWatch accepts the alarms, and a late tick is dropped before the next one is due."""
    found = []
    for minutes in template.raw["Parameters"]["BackupMinutes"]["AllowedValues"]:
        parameters = {**BUCKET, **NODE, "BackupMinutes": str(minutes)}
        resolved = Resolution(template.expand(parameters), parameters)
        for name, alarm in resolved.of_type("AWS::CloudWatch::Alarm").items():
            periods = [alarm.get("Period", 0)]
            periods += [m["MetricStat"]["Period"] for m in alarm.get("Metrics", []) if "MetricStat" in m]
            seconds = int(max(periods)) * int(alarm["EvaluationPeriods"])
            if seconds > 86_400:
                found.append(f"every {minutes} min, {name} evaluates {seconds} s; CloudWatch allows at most 86400 s")
        rule = resolved.of_type("AWS::Events::Rule")["BackupFunctionSchedule"]
        invoke = resolved.of_type("AWS::Lambda::EventInvokeConfig")["BackupFunctionEventInvokeConfig"]
        for place in (rule["Targets"][0]["RetryPolicy"], invoke):
            if int(place["MaximumEventAgeInSeconds"]) > 60 * minutes:
                found.append(f"every {minutes} min, a tick is delivered after the next one")
    return found


def timing(template: Template):
    """The template has the timing of shared/src/budget.rs, and drops late events in time."""
    budget = rust_source.budget()
    resolved = template.resolved()
    functions = resolved.of_type("AWS::Lambda::Function")
    invoke = resolved.of_type("AWS::Lambda::EventInvokeConfig")
    group = resolved.of_type("AWS::AutoScaling::AutoScalingGroup")["Group"]
    hooks = {hook["LifecycleHookName"]: hook["HeartbeatTimeout"] for hook in group["LifecycleHookSpecificationList"]}
    targets = resolved.of_type("AWS::ElasticLoadBalancingV2::TargetGroup")["Targets"]["TargetGroupAttributes"]
    delay = {a["Key"]: a["Value"] for a in targets}["deregistration_delay.timeout_seconds"]
    in_template = {
        "SCHEDULE": 60 * int(resolved.values["BackupMinutes"]),
        "SWEEP": 60,
        "LAMBDA": {function["Timeout"] for function in functions.values()},
        "DEREGISTRATION_DELAY": int(delay),
        "LAUNCH_HEARTBEAT": hooks.get("rekindle-launch"),
        "TERMINATE_HEARTBEAT": hooks.get("rekindle-terminate"),
        "BACKUP_EVENT_AGE": int(invoke["BackupFunctionEventInvokeConfig"]["MaximumEventAgeInSeconds"]),
        "RESTORE_EVENT_AGE": int(invoke["RestoreFunctionEventInvokeConfig"]["MaximumEventAgeInSeconds"]),
    }
    found = []
    for name, value in in_template.items():
        values = value if isinstance(value, set) else {value}
        if values != {budget[name]}:
            found.append(f"{name} is {budget[name]} in the budget but {sorted(values)} in the template")
    for name, rule in resolved.of_type("AWS::Events::Rule").items():
        age = int(rule["Targets"][0]["RetryPolicy"]["MaximumEventAgeInSeconds"])
        limit = budget["SWEEP"] if name.endswith("Sweep") else budget["RESTORE_EVENT_AGE"]
        limit = min(limit, budget["BACKUP_EVENT_AGE"]) if name.startswith("Backup") else limit
        if age > limit:
            found.append(f"{name} delivers events that are up to {age} s old; the limit is {limit} s")
    code = rust_source.source(ROOT / "shared/src/aws/autoscaling.rs")
    named = set(re.findall(r'_HOOK: &str = "([\w-]+)"', code))
    if named != hooks.keys():
        found.append(f"the code handles the hooks {sorted(named)}, but the group has {sorted(hooks)}")
    tag = re.search(r'APPLICATION_TAG: &str = "([\w:]+)"', code).group(1)
    if not any(t["Key"] == tag and t["PropagateAtLaunch"] for t in group["Tags"]):
        found.append(f"the group does not propagate the tag {tag} to its instances")
    return found
