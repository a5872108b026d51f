"""The template and the code agree."""

import pytest

import findings
from template import Template


@pytest.mark.parametrize("check", findings.ALL, ids=lambda check: check.__name__)
def test_the_shipped_template_has_no_findings(check, shipped):
    assert check(shipped) == []


# Every kind of mistake that linters let pass is planted once: its check must name it.
DEFECTS = {
    "misspelt IAM action": (
        "- ssm:ListCommandInvocations\n",
        "- ssm:ListCommandInvocation\n",
        findings.known_actions,
        "there is no action ssm:ListCommandInvocation",
    ),
    "missing permission": (
        "                  - autoscaling:DescribeScalingActivities\n",
        "",
        findings.permissions,
        "RestoreRole does not allow autoscaling:DescribeScalingActivities",
    ),
    "surplus permission": (
        "Action: [s3:AbortMultipartUpload, s3:PutObject]",
        "Action: [s3:AbortMultipartUpload, s3:DeleteObject, s3:PutObject]",
        findings.permissions,
        "NodeRole allows s3:DeleteObject",
    ),
    "every resource": (
        "Resource: !Sub arn:${AWS::Partition}:ssm:${AWS::Region}:${AWS::AccountId}:document/${BackupDocument}",
        'Resource: "*"',
        findings.known_actions,
        "ssm:SendCommand on every resource",
    ),
    "wrong detail-type": (
        "detail-type: [EC2 Instance-terminate Lifecycle Action]",
        "detail-type: [EC2 Instance Terminate Lifecycle Action]",
        findings.event_patterns,
        "events/terminate.json triggers []",
    ),
    "source that is no list": (
        "              source: [aws.autoscaling]\n              detail-type: [EC2 Instance-launch Lifecycle Action]",
        "              source: aws.autoscaling\n              detail-type: [EC2 Instance-launch Lifecycle Action]",
        findings.event_patterns,
        "AWS refuses 'aws.autoscaling'",
    ),
    "pattern without a hook": (
        "              detail: {LifecycleHookName: [rekindle-launch]}\n",
        "              detail: {LifecycleTransition: [autoscaling:EC2_INSTANCE_LAUNCHING]}\n",
        findings.strangers,
        "takes an event that is not Rekindle's",
    ),
    "command event in place of the invocation event": (
        "detail-type: [EC2 Command Invocation Status-change Notification]\n              detail:\n"
        "                document-name: [!Ref RestoreDocument]",
        "detail-type: [EC2 Command Status-change Notification]\n              detail:\n"
        "                document-name: [!Ref RestoreDocument]",
        findings.event_patterns,
        "no file of events/ triggers RestoreFunctionRestoreFinished",
    ),
    "allowedPattern that admits a quote": (
        '"^(scheduled|manual|final|adopt)$"',
        "\"^(scheduled|manual|final|adopt)'?$\"",
        findings.document_parameters,
        'BackupDocument.Purpose admits "scheduled\'"',
    ),
    "allowedPattern that admits a space": (
        'BackupId: {type: String, allowedPattern: "^[0-9]{8}T[0-9]{6}[.][0-9]{3}Z$"}',
        'BackupId: {type: String, allowedPattern: "^[0-9]{8}T[0-9]{6}[.][0-9]{3}Z ?$"}',
        findings.document_parameters,
        "BackupDocument.BackupId admits '20261123T021500.000Z '",
    ),
    "allowedPattern without an end": (
        '"^(scheduled|manual|final|adopt)$"',
        '"^(scheduled|manual|final|adopt)"',
        findings.document_parameters,
        "BackupDocument.Purpose: the pattern is not anchored",
    ),
    "allowedPattern that the agent cannot compile": (
        '"^(scheduled|manual|final|adopt)$"',
        '"^(scheduled|manual|final|adopt|x{1,1024})$"',
        findings.document_parameters,
        "the agent cannot compile the pattern",
    ),
    "allowedPattern that refuses a purpose": (
        '"^(scheduled|manual|final|adopt)$"',
        '"^(scheduled|manual|final)$"',
        findings.document_parameters,
        "BackupDocument.Purpose refuses 'adopt'",
    ),
    "variable that nothing reads": (
        "        REKINDLE_METRIC_NAMESPACE: Rekindle\n",
        "        REKINDLE_METRIC_NAMESPACE: Rekindle\n        REKINDLE_REGION: eu-central-1\n",
        findings.environment,
        "REKINDLE_REGION, which nothing reads",
    ),
    "variable that is missing": (
        "        REKINDLE_AGENT: /opt/rekindle-node\n",
        "",
        findings.environment,
        "BackupFunction lacks REKINDLE_AGENT",
    ),
    "other heartbeat": (
        "HeartbeatTimeout: 1200",
        "HeartbeatTimeout: 900",
        findings.timing,
        "TERMINATE_HEARTBEAT is 1200 in the budget and [900]",
    ),
    "hook of another name": (
        "- LifecycleHookName: rekindle-terminate",
        "- LifecycleHookName: rekindle-terminating",
        findings.timing,
        "the group has ['rekindle-launch', 'rekindle-terminating']",
    ),
    "alarm on a metric that nobody sends": (
        "MetricName: mem_used_percent",
        "MetricName: MemoryUtilization",
        findings.alarm_metrics,
        "MemoryFull: nothing sends CWAgent MemoryUtilization",
    ),
    "default that settings/ does not have": (
        "Default: docker_trusted_registry_postgres",
        "Default: registry_postgres",
        findings.default_settings,
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
    assert any(f"{action}s is no action of SSM" in finding for finding in findings.document_shape(Template(text)))
