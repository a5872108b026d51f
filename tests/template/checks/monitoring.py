"""Alarms, dashboard and saved queries use only metrics and log fields that exist."""

import json
import re

import rust_source
from checks.node import user_data, written_files
from template import Template

# Metrics that AWS publishes by itself, with their dimensions.
AWS_METRICS = {
    ("AWS/Lambda", "Errors"): {("FunctionName",)},
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): {("QueueName",)},
    ("AWS/EC2", "CPUUtilization"): {("AutoScalingGroupName",)},
}


def sent_metrics(template):
    """Returns every metric that functions, agents and AWS send, with its sets of dimensions."""
    resolved = template.resolved()
    namespace = resolved.of_type("AWS::Lambda::Function")["BackupFunction"]["Environment"]["Variables"]["REKINDLE_METRIC_NAMESPACE"]
    sent = {(namespace, name): dimensions for name, dimensions in rust_source.metrics().items()}
    kinds = rust_source.kinds()
    for properties in resolved.of_type("AWS::Logs::MetricFilter").values():
        field, *others = re.findall(r"\$\.(\w+) ", properties["FilterPattern"])
        # The only other condition is the kind of the failure, which the functions must know.
        assert set(others) <= {"Kind"}, properties["FilterPattern"]
        if not set(re.findall(r'\$\.Kind !?= "(\w+)"', properties["FilterPattern"])) <= kinds:
            continue
        for made in properties["MetricTransformations"]:
            # A filter only works if the functions print the field that it reads.
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
    return sent | AWS_METRICS


def alarms(template: Template):
    """Every alarm uses a metric that exists with its dimensions, and notifies the topic in every state."""
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
                found.append(f"{name}: {key[1]} is sent with the dimensions {sorted(sent[key])}, not {dimensions}")
        for state in ("AlarmActions", "OKActions", "InsufficientDataActions"):
            if not alarm.get(state):
                found.append(f"{name} has no {state}")
        if not alarm.get("TreatMissingData"):
            found.append(f"{name} has no TreatMissingData")
    return found


def dashboard(template: Template):
    """The dashboard is valid JSON, and shows only metrics that exist."""
    sent = sent_metrics(template)
    body = json.loads(template.resolved().of_type("AWS::CloudWatch::Dashboard")["Dashboard"]["DashboardBody"])
    found = []
    for widget in body["widgets"]:
        for metric in widget["properties"].get("metrics", []):
            if isinstance(metric[0], str) and (metric[0], metric[1]) not in sent:
                found.append(f"{widget['properties']['title']}: nothing sends {metric[0]} {metric[1]}")
    return found


def queries(template: Template):
    """The saved queries use only fields, decisions and messages that the functions log."""
    code = "\n".join(text for folder in ("functions", "shared/src") for text in rust_source.sources(folder).values())
    found = []
    for name, query in template.resolved().of_type("AWS::Logs::QueryDefinition").items():
        fields = set(re.findall(r"\bfields\.(\w+)", query["QueryString"])) - {"message"}
        found += [f"{name}: no log line has the field {field}" for field in sorted(fields) if not re.search(rf"\b{field}\b", code)]
        values = re.findall(r'fields\.decision (?:=|in) ("[^"]*"|\[[^\]]*\])', query["QueryString"])
        decisions = re.findall(r'"([^"]+)"', " ".join(values))
        found += [f"{name}: no log line has the decision {decision}" for decision in decisions if f'"{decision}"' not in code]
        messages = re.findall(r"fields\.message like /([^/]+)/", query["QueryString"])
        found += [f"{name}: no log line has the message {message!r}" for message in messages if message not in code]
    return found
