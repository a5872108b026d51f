"""The project's own checks of the template: what linters do not see. Each returns its findings, one sentence each."""

import json
import re
import tomllib

import re2

import iam
import rust_source
from patterns import matches
from template import NODE, OPTIONS, ROOT, Template

FUNCTIONS = {"BackupFunction": "functions/backup", "RestoreFunction": "functions/restore"}
ROLES = {"BackupRole": "functions/backup", "RestoreRole": "functions/restore", "NodeRole": "node"}


# ---- Events ---------------------------------------------------------------------------------------------------------

# Which rule each file of events/ is for, by the beginning of its name; None for what an operator sends by hand.
TRIGGERS = {
    "backup-now": None,
    "list-backups": None,
    "adopt": None,
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


def event_patterns(template: Template):
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


# ---- Documents ------------------------------------------------------------------------------------------------------

ACTIONS = {"aws:downloadContent", "aws:runShellScript"}
HEX = "0123456789abcdef"
BACKUP_ID = "20261123T021500.000Z"
CANDIDATE = f"{BACKUP_ID}/0a1b2c3d/{'ab' * 32}/"
# What shared/src/command.rs builds.
ACCEPTED = {
    "OperationId": [BACKUP_ID, "final-i-0123456789abcdef0", "launch-i-0123456789abcdef0", "a" * 64],
    "BackupId": [BACKUP_ID, "20991231T235959.999Z"],
    "Purpose": ["scheduled", "manual", "final", "adopt"],
    "AgentSha256": ["ab" * 32, "0" * 64],
    "ExecutionTimeout": ["60", "780", "900", "5100"],
    "Candidates": [
        "none",
        CANDIDATE + "-",
        CANDIDATE + "3HL4kqtJvjVBH40Nrjfkd",
        CANDIDATE + "3sL4kqtJlcpXroDTDmJ.xUZl-ZfZ_5z2",
        ",".join([CANDIDATE + "-", CANDIDATE + "v" * 32, CANDIDATE + "-"]),
    ],
}
HOSTILE = ["'", '"', " ", "\n", "\r\n", "\t", ";", "&", "|", "$", "`", "\\", "(", "<", ">", "*", "{{", "\0", "é"]


def documents(template):
    return {name: d for name, d in template.resolved().of_type("AWS::SSM::Document").items()}


def purposes():
    """The purposes that the code knows, which the document must take."""
    text = rust_source.source(ROOT / "shared/src/command.rs")
    return re.findall(r'Self::\w+ => "([a-z]+)"', text)


def document_parameters(template: Template):
    """allowedPattern takes what the code sends, and nothing that a shell could read as more than a word.

    SSM checks it twice: with Java's expressions in the API and with RE2 in the agent. RE2 decides here.
    """
    found = []
    for name, document in documents(template).items():
        for parameter, declared in document["Content"]["parameters"].items():
            place = f"{name}.{parameter}"
            pattern = declared.get("allowedPattern", "")
            try:
                expression = re2.compile(pattern)
            except re2.error as error:
                found.append(f"{place}: the agent cannot compile the pattern: {error}")
                continue
            if not (pattern.startswith("^") and pattern.endswith("$")):
                found.append(f"{place}: the pattern is not anchored")
            if parameter not in ACCEPTED:
                found.append(f"{place}: the tests do not know what the code sends")
                continue
            accepted = ACCEPTED[parameter] + (purposes() if parameter == "Purpose" else [])
            for value in accepted:
                if not expression.search(value):
                    found.append(f"{place} refuses {value[:60]!r}, which the code sends")
                for hostile in HOSTILE:
                    for spoilt in (value + hostile, hostile + value, value[:3] + hostile + value[3:], hostile):
                        if expression.search(spoilt):
                            found.append(f"{place} admits {spoilt[:60]!r}")
            if expression.search(""):
                found.append(f"{place} admits nothing at all")
    return found


def document_shape(template: Template):
    """What SSM wants of a document, which cfn-lint does not look into."""
    found = []
    code = rust_source.source(ROOT / "shared/src/command.rs")
    step = re.search(r'AGENT_STEP: &str = "(\w+)"', code).group(1)
    named = set(re.findall(r'^const [A-Z_0-9]+: &str = "([A-Z]\w+)";', code, re.MULTILINE))
    asked = set()
    for name, document in documents(template).items():
        content = document["Content"]
        asked |= content["parameters"].keys()
        expected = {"DocumentType": "Command", "TargetType": "/AWS::EC2::Instance", "UpdateMethod": "NewVersion"}
        for field, value in expected.items():
            if document.get(field) != value:
                found.append(f"{name}: {field} is {document.get(field)!r}, not {value!r}")
        if content.get("schemaVersion") != "2.2":
            found.append(f"{name}: schemaVersion is {content.get('schemaVersion')!r}")
        steps = {s["name"]: s for s in content["mainSteps"]}
        for s in content["mainSteps"]:
            if s["action"] not in ACTIONS:
                found.append(f"{name}.{s['name']}: {s['action']} is no action of SSM that Rekindle uses")
        if [s["action"] for s in content["mainSteps"]] != ["aws:downloadContent", "aws:runShellScript"]:
            found.append(f"{name}: the steps are not to fetch the agent and to run it")
            continue
        if content["mainSteps"][0]["inputs"].get("onFailure") != "exit":
            found.append(f"{name}: the agent is run although it was not fetched")
        if content["mainSteps"][1]["name"] != step:
            found.append(f"{name}: the agent's step is not {step}, by which the functions ask for its output")
        used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(content["mainSteps"])))
        if used != content["parameters"].keys():
            found.append(f"{name}: parameters and their uses differ: {sorted(used ^ content['parameters'].keys())}")
        if steps[step]["inputs"].get("timeoutSeconds") != "{{ ExecutionTimeout }}":
            found.append(f"{name}: the agent's step does not have the command's execution timeout")
    if asked != named:
        found.append(f"parameters that code and documents do not share: {sorted(asked ^ named)}")
    return found


# ---- Environment, timing --------------------------------------------------------------------------------------------


def environment(template: Template):
    """The functions read what the template sets, and the template sets what they read."""
    found = []
    read = set(rust_source.environment_names().values())
    for name, function in template.resolved().of_type("AWS::Lambda::Function").items():
        given = function["Environment"]["Variables"]
        found += [f"{name} lacks {missing}" for missing in sorted(read - given.keys())]
        found += [f"{name} has {surplus}, which nothing reads" for surplus in sorted(given.keys() - read)]
        found += [f"{name}: {variable} is empty" for variable, value in given.items() if not value]
    return found


def timing(template: Template):
    """The template has the numbers of shared/src/budget.rs, and keeps their promises with its own."""
    budget = rust_source.budget()
    resolved = template.resolved()
    functions = resolved.of_type("AWS::Lambda::Function")
    invoke = resolved.of_type("AWS::Lambda::EventInvokeConfig")
    group = resolved.of_type("AWS::AutoScaling::AutoScalingGroup")["Group"]
    hooks = {hook["LifecycleHookName"]: hook["HeartbeatTimeout"] for hook in group["LifecycleHookSpecificationList"]}
    targets = resolved.of_type("AWS::ElasticLoadBalancingV2::TargetGroup")["Targets"]["TargetGroupAttributes"]
    delay = {a["Key"]: a["Value"] for a in targets}["deregistration_delay.timeout_seconds"]
    here = {
        "SCHEDULE": 60 * int(resolved.values["BackupMinutes"]),
        "SWEEP": 60,
        "LAMBDA": {function["Timeout"] for function in functions.values()},
        "DEREGISTRATION_DELAY": int(delay),
        "LAUNCH_HEARTBEAT": hooks.get("rekindle-launch"),
        "TERMINATE_HEARTBEAT": hooks.get("rekindle-terminate"),
        "BACKUP_EVENT_AGE": invoke["BackupFunctionEventInvokeConfig"]["MaximumEventAgeInSeconds"],
        "RESTORE_EVENT_AGE": invoke["RestoreFunctionEventInvokeConfig"]["MaximumEventAgeInSeconds"],
    }
    found = []
    for name, value in here.items():
        values = value if isinstance(value, set) else {value}
        if values != {budget[name]}:
            found.append(f"{name} is {budget[name]} in the budget and {sorted(values)} in the template")
    for name, rule in resolved.of_type("AWS::Events::Rule").items():
        age = rule["Targets"][0]["RetryPolicy"]["MaximumEventAgeInSeconds"]
        limit = budget["SWEEP"] if name.endswith("Sweep") else budget["RESTORE_EVENT_AGE"]
        limit = min(limit, budget["BACKUP_EVENT_AGE"]) if name.startswith("Backup") else limit
        if age > limit:
            found.append(f"{name} delivers events that are {age} s old, when {limit} s are too late")
    code = rust_source.source(ROOT / "shared/src/aws/autoscaling.rs")
    named = set(re.findall(r'_HOOK: &str = "([\w-]+)"', code))
    if named != hooks.keys():
        found.append(f"the code answers the hooks {sorted(named)}, the group has {sorted(hooks)}")
    tag = re.search(r'STACK_TAG: &str = "([\w:]+)"', code).group(1)
    if not any(t["Key"] == tag and t["PropagateAtLaunch"] for t in group["Tags"]):
        found.append(f"the group does not give its instances the tag {tag}")
    return found


# ---- IAM ------------------------------------------------------------------------------------------------------------

# What an operation needs where its action has another name.
ACTIONS_OF = {
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
}
# What is allowed although none of our code calls it, by statement.
BESIDE_THE_CODE = {
    "WriteItsLog": "Lambda writes the function's output to its log group",
    "HandOverFailedEvents": "Lambda sends what failed for good to the queue",
    "UseTheKeyThroughS3": "S3 uses the key on behalf of whoever reads or writes",
    "ListTheAgent": "aws:downloadContent of the SSM agent lists what it fetches",
    "FetchTheAgent": "aws:downloadContent of the SSM agent fetches the agent",
    "MeasureItself": "the CloudWatch agent's metrics",
    "LearnItsGroupFromItsTags": "the CloudWatch agent's dimension AutoScalingGroupName",
    "ApplicationImages": "the application's own bucket of bulk data",
    "ApplicationImagesBucket": "the application's own bucket of bulk data",
}


def statements(template, role):
    [policy] = template.resolved(**OPTIONS).of_type("AWS::IAM::Role")[role]["Policies"]
    return policy["PolicyDocument"]["Statement"]


def needed(folder):
    actions = {ACTIONS_OF.get(operation, operation) for operation in rust_source.operations_of(folder)}
    if "s3:GetObject" in actions and rust_source.reads_versions(folder):
        actions.add("s3:GetObjectVersion")
    return actions


def permissions(template: Template):
    """Each role allows exactly the operations that its program calls."""
    found = []
    for role, folder in ROLES.items():
        allowed = set()
        for statement in statements(template, role):
            if statement["Effect"] == "Allow" and statement["Sid"] not in BESIDE_THE_CODE:
                allowed |= set(iam.listed(statement["Action"]))
        missing, surplus = needed(folder) - allowed, allowed - needed(folder)
        found += [f"{role} does not allow {action}, which {folder} calls" for action in sorted(missing)]
        found += [f"{role} allows {action}, which {folder} does not call" for action in sorted(surplus)]
    return found


def known_actions(template: Template):
    """Every action in the template exists, and only what has no resource to name is allowed on all of them."""
    found = []
    resolved = template.resolved(**OPTIONS, ReplicaBucketArn="arn:aws:s3:::replica", ReplicaKmsKeyArn=OPTIONS["KmsKeyArn"])
    for where, statement in iam.all_statements(resolved):
        for action in iam.listed(statement["Action"]):
            if not iam.exists(action):
                found.append(f"{where}: there is no action {action}")
            elif statement["Effect"] == "Allow" and statement.get("Resource") == "*" and iam.resource_types(action):
                found.append(f"{where}: {action} on every resource, though AWS takes {iam.resource_types(action)}")
    return found


# ---- Node settings, metrics -----------------------------------------------------------------------------------------


def user_data(template, **parameters):
    launch = template.resolved(**parameters).of_type("AWS::EC2::LaunchTemplate")["NodeTemplate"]
    return launch["LaunchTemplateData"]["UserData"]


def written_files(script):
    """The files that a script writes from here-documents, by path."""
    written = re.findall(r"cat > (\S+) <<'(\w+)'\n(.*?)^ *\2$", script, re.MULTILINE | re.DOTALL)
    return {path: content for path, _, content in written}


def node_settings(template, **parameters):
    return written_files(user_data(template, **parameters))["/etc/rekindle/node.toml"]


def default_settings(template: Template):
    """The parameters' defaults are the settings of DTR 1.4 as settings/ has them."""
    rendered = tomllib.loads(node_settings(template))
    example = tomllib.loads((ROOT / "settings/dtr-1.4.toml").read_text())
    found = []
    for section in ("configuration", "postgres", "commands"):
        for key, value in rendered[section].items():
            if example[section].get(key) != value:
                found.append(f"[{section}] {key} is {value!r}, and {example[section].get(key)!r} in settings/dtr-1.4.toml")
        missing = {"commands": {"start_postgres", "start", "stop", "health"}}.get(section, set()) - rendered[section].keys()
        found += [f"[{section}] {key} of settings/dtr-1.4.toml has no default" for key in sorted(missing)]
    return found


# AWS' own metrics that alarms rest on; AWS sends them without anybody's doing.
OF_AWS = {
    ("AWS/Lambda", "Errors"): {("FunctionName",)},
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): {("QueueName",)},
    ("AWS/EC2", "CPUUtilization"): {("AutoScalingGroupName",)},
}


def sent_metrics(template):
    """Every metric that is sent, with the sets of dimensions that it is sent with."""
    resolved = template.resolved()
    namespace = resolved.of_type("AWS::Lambda::Function")["BackupFunction"]["Environment"]["Variables"]["REKINDLE_METRIC_NAMESPACE"]
    sent = {(namespace, name): dimensions for name, dimensions in rust_source.metrics().items()}
    for properties in resolved.of_type("AWS::Logs::MetricFilter").values():
        [field] = re.findall(r"\$\.(\w+) ", properties["FilterPattern"])
        for made in properties["MetricTransformations"]:
            # A filter counts what the functions print, so it is worth as much as the line that it reads.
            if made["MetricValue"] == f"$.{field}" and (namespace, field) in sent:
                sent[made["MetricNamespace"], made["MetricName"]] = {tuple(d["Key"] for d in made["Dimensions"])}
    agent = json.loads(next(c for p, c in written_files(user_data(template)).items() if p.endswith("rekindle.json")))
    collected = agent["metrics"]["metrics_collected"]
    for plugin, settings in collected.items():
        for measurement in settings["measurement"]:
            name = measurement if measurement.startswith(plugin) else f"{plugin}_{measurement}"
            sent[agent["metrics"]["namespace"], name] = {tuple(d) for d in agent["metrics"]["aggregation_dimensions"]}
    group = resolved.of_type("AWS::AutoScaling::AutoScalingGroup")["Group"]
    for name in group["MetricsCollection"][0]["Metrics"]:
        sent["AWS/AutoScaling", name] = {("AutoScalingGroupName",)}
    return sent | OF_AWS


def alarm_metrics(template: Template):
    """Every alarm rests on a metric that something sends with these dimensions, and tells somebody whatever happens."""
    sent = sent_metrics(template)
    found = []
    for name, alarm in template.resolved().of_type("AWS::CloudWatch::Alarm").items():
        metrics = [m["MetricStat"]["Metric"] for m in alarm.get("Metrics", []) if "MetricStat" in m]
        metrics = metrics or [alarm]
        for metric in metrics:
            key = (metric["Namespace"], metric["MetricName"])
            dimensions = tuple(d["Name"] for d in metric.get("Dimensions", []))
            if key not in sent:
                found.append(f"{name}: nothing sends {key[0]} {key[1]}")
            elif dimensions not in sent[key]:
                found.append(f"{name}: {key[1]} is sent by {sorted(sent[key])}, not by {dimensions}")
        for state in ("AlarmActions", "OKActions", "InsufficientDataActions"):
            if not alarm.get(state):
                found.append(f"{name} has no {state}")
        if not alarm.get("TreatMissingData"):
            found.append(f"{name} does not say what missing data mean")
    return found


def dashboard_metrics(template: Template):
    """The dashboard is JSON, and shows metrics that exist."""
    sent = sent_metrics(template)
    body = json.loads(template.resolved().of_type("AWS::CloudWatch::Dashboard")["Dashboard"]["DashboardBody"])
    found = []
    for widget in body["widgets"]:
        for metric in widget["properties"].get("metrics", []):
            if isinstance(metric[0], str) and (metric[0], metric[1]) not in sent:
                found.append(f"{widget['properties']['title']}: nothing sends {metric[0]} {metric[1]}")
    return found


ALL = [
    event_patterns,
    strangers,
    schedules,
    document_parameters,
    document_shape,
    environment,
    timing,
    permissions,
    known_actions,
    default_settings,
    alarm_metrics,
    dashboard_metrics,
]
