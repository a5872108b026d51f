"""The template passes the project's own checks, and each check finds its planted defect."""

import pytest

import checks
from checks import documents, events, group, monitoring, node, numbers, permissions
from template import Template


@pytest.mark.parametrize("check", checks.ALL, ids=lambda check: f"{check.__module__}.{check.__name__}")
def test_the_shipped_template_has_no_findings(check, shipped):
    found = check(shipped)
    assert not found, "\n".join(found)


# Defects that linters do not find: text before and after, the check, and a part of its finding.
DEFECTS = {
    "misspelt IAM action": (
        "- ssm:ListCommandInvocations\n",
        "- ssm:ListCommandInvocation\n",
        permissions.known,
        "the action ssm:ListCommandInvocation does not exist",
    ),
    "missing permission": (
        "                  - autoscaling:DescribeScalingActivities\n                  - ssm:DescribeInstanceInformation\n",
        "                  - ssm:DescribeInstanceInformation\n",
        permissions.minimal,
        "RestoreRole does not allow autoscaling:DescribeScalingActivities",
    ),
    "surplus permission": (
        "Action: [s3:AbortMultipartUpload, s3:PutObject]",
        "Action: [s3:AbortMultipartUpload, s3:DeleteObject, s3:PutObject]",
        permissions.minimal,
        "NodeRole allows s3:DeleteObject",
    ),
    "action on every resource": (
        "Resource: !Sub arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:document/${BackupDocument}",
        'Resource: "*"',
        permissions.known,
        "ssm:SendCommand is allowed on every resource",
    ),
    "wrong detail-type": (
        "detail-type: [EC2 Instance-terminate Lifecycle Action]",
        "detail-type: [EC2 Instance Terminate Lifecycle Action]",
        events.patterns,
        "events/terminate.json triggers []",
    ),
    "source that is not a list": (
        "              source: [aws.autoscaling]\n              detail-type: [EC2 Instance-launch Lifecycle Action]",
        "              source: aws.autoscaling\n              detail-type: [EC2 Instance-launch Lifecycle Action]",
        events.patterns,
        "AWS refuses 'aws.autoscaling'",
    ),
    "pattern without a hook": (
        "              detail: {LifecycleHookName: [rekindle-launch]}\n",
        "              detail: {LifecycleTransition: [autoscaling:EC2_INSTANCE_LAUNCHING]}\n",
        events.foreign_events,
        "matches an event that is not Rekindle's",
    ),
    "command event instead of the invocation event": (
        "detail-type: [EC2 Command Invocation Status-change Notification]\n              detail:\n"
        "                document-name: [!Ref RestoreDocument]",
        "detail-type: [EC2 Command Status-change Notification]\n              detail:\n"
        "                document-name: [!Ref RestoreDocument]",
        events.patterns,
        "no file of events/ triggers RestoreFunctionRestoreFinished",
    ),
    "allowedPattern that accepts a quote": (
        '"^(scheduled|manual|final|adopt|pre-restore)$"',
        "\"^(scheduled|manual|final|adopt|pre-restore)'?$\"",
        documents.parameters,
        'BackupDocument.Purpose accepts "scheduled\'"',
    ),
    "allowedPattern that accepts a space": (
        'BackupId: {type: String, allowedPattern: "^[0-9]{8}T[0-9]{6}[.][0-9]{3}Z$"}',
        'BackupId: {type: String, allowedPattern: "^[0-9]{8}T[0-9]{6}[.][0-9]{3}Z ?$"}',
        documents.parameters,
        "BackupDocument.BackupId accepts '20261123T021500.000Z '",
    ),
    "allowedPattern without an end": (
        '"^(scheduled|manual|final|adopt|pre-restore)$"',
        '"^(scheduled|manual|final|adopt|pre-restore)"',
        documents.parameters,
        "BackupDocument.Purpose: the pattern is not anchored",
    ),
    "allowedPattern that the SSM agent cannot compile": (
        '"^(scheduled|manual|final|adopt|pre-restore)$"',
        '"^(scheduled|manual|final|adopt|pre-restore|x{1,1024})$"',
        documents.parameters,
        "the SSM agent cannot compile the pattern",
    ),
    "allowedPattern that refuses a purpose": (
        '"^(scheduled|manual|final|adopt|pre-restore)$"',
        '"^(scheduled|manual|final)$"',
        documents.parameters,
        "BackupDocument.Purpose refuses 'adopt'",
    ),
    "environment variable that nothing reads": (
        "        REKINDLE_METRIC_NAMESPACE: Rekindle\n",
        "        REKINDLE_METRIC_NAMESPACE: Rekindle\n        REKINDLE_REGION: eu-central-1\n",
        numbers.environment,
        "REKINDLE_REGION, which nothing reads",
    ),
    "missing environment variable": (
        "        REKINDLE_AGENT: /opt/rekindle-node\n",
        "",
        numbers.environment,
        "BackupFunction lacks REKINDLE_AGENT",
    ),
    "late tick after the next one": (
        "TwoAndFive: 7, EventAge: 60}",
        "TwoAndFive: 7, EventAge: 600}",
        numbers.schedules,
        "every 1 min, a tick is delivered after the next one",
    ),
    "heartbeat that differs from the budget": (
        "HeartbeatTimeout: 1200",
        "HeartbeatTimeout: 900",
        numbers.timing,
        "TERMINATE_HEARTBEAT is 1200 in the budget but [900]",
    ),
    "hook with another name": (
        "- LifecycleHookName: rekindle-terminate",
        "- LifecycleHookName: rekindle-terminating",
        numbers.timing,
        "the group has ['rekindle-launch', 'rekindle-terminating']",
    ),
    "alarm on a metric that nothing sends": (
        "MetricName: mem_used_percent",
        "MetricName: MemoryUtilization",
        monitoring.alarms,
        "MemoryFull: nothing sends CWAgent MemoryUtilization",
    ),
    "filter for a kind that nothing records": (
        '($.Kind = "RestoreExceptions")',
        '($.Kind = "RestoreException")',
        monitoring.alarms,
        "RestoreExceptions: nothing sends Rekindle RestoresWithExceptions",
    ),
    "replacement that overlaps": (
        "{MinHealthyPercentage: 0, MaxHealthyPercentage: 100}",
        "{MinHealthyPercentage: 100, MaxHealthyPercentage: 200}",
        group.one_at_a_time,
        "a replacement may overlap",
    ),
    "IMDSv1": ("HttpTokens: required", "HttpTokens: optional", group.access, "the node accepts IMDSv1"),
    "hook that admits a node without a restore": (
        "HeartbeatTimeout: 1800\n          DefaultResult: ABANDON",
        "HeartbeatTimeout: 1800\n          DefaultResult: CONTINUE",
        group.default_results,
        "'rekindle-launch': 'CONTINUE'",
    ),
    "resource without its condition": (
        "  DiskFull:\n    Type: AWS::CloudWatch::Alarm\n    Condition: WithGroup\n",
        "  DiskFull:\n    Type: AWS::CloudWatch::Alarm\n",
        group.deployments,
        "functions only: DiskFull must not exist",
    ),
    "query for a field that nothing logs": (
        "fields.age_seconds,",
        "fields.backup_age,",
        monitoring.queries,
        "LastRestores: no log line has the field backup_age",
    ),
    "query for a decision that nothing logs": (
        'fields.decision = "commit"',
        'fields.decision = "committed"',
        monitoring.queries,
        "LastBackups: no log line has the decision committed",
    ),
    "query for a message that nothing logs": (
        "fields.message like /abandoned the launch/",
        "fields.message like /the launch was abandoned/",
        monitoring.queries,
        "LastRestores: no log line has the message 'the launch was abandoned'",
    ),
    "default that differs from settings/": (
        "Default: docker_trusted_registry_postgres\n",
        "Default: registry_postgres\n",
        node.default_settings,
        "[postgres] container is 'registry_postgres'",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(defect, shipped):
    before, after, check, expected = DEFECTS[defect]
    found = check(shipped.with_defect(before, after))
    assert any(expected in finding for finding in found), found


@pytest.mark.parametrize("step", ["fetchAgent", "runAgent"])
def test_a_misspelt_ssm_action_is_found(step, shipped):
    action = {"fetchAgent": "aws:downloadContent", "runAgent": "aws:runShellScript"}[step]
    text = shipped.text.replace(f"- action: {action}\n            name: {step}", f"- action: {action}s\n            name: {step}")
    assert any(f"{action}s is not an SSM action" in finding for finding in documents.shape(Template(text)))
