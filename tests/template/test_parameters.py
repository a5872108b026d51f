"""Parameters, and the combinations that CloudFormation refuses before it creates anything."""

import re

import pytest

from template import NODE, OPTIONS

KEY = OPTIONS["KmsKeyArn"]
REPLICA = "arn:aws:s3:::replica"
REFUSED = {
    "nothing to deploy": ({"DeployFunctions": "no", "DeployNode": "no"}, "Nothing to deploy"),
    "a node without a VPC": ({"VpcId": ""}, "DeployNode=yes needs VpcId"),
    "a node without subnets": ({"NodeSubnets": ""}, "DeployNode=yes needs NodeSubnets"),
    "a load balancer without subnets": ({"BalancerSubnets": ""}, "DeployNode=yes needs BalancerSubnets"),
    "a node and an adopted group": ({"AdoptedGroupName": "dtr"}, "AdoptedGroupName needs DeployNode=no"),
    "arm64 on a t3": ({"Architecture": "arm64"}, "InstanceType is not arm64"),
    "access logs without TLS": ({"AccessLogsBucket": "logs"}, "Only a TLS listener writes access logs"),
    "a replica of an existing bucket": ({"ReplicaBucketArn": REPLICA, "CreateBackupBucket": "no"}, "ReplicaBucketArn needs CreateBackupBucket=yes"),
    "a replica without bulk data": ({"BulkDataReplicaBucketArn": REPLICA}, "BulkDataReplicaBucketArn needs BulkDataBucketName"),
    "an encrypted replica without a key": ({"ReplicaBucketArn": REPLICA, "KmsKeyArn": KEY}, "Set ReplicaKmsKeyArn"),
    "a host name without a zone": ({"HostName": "hub.company.com"}, "A DNS record needs both"),
    "a zone without a host name": ({"HostedZoneId": "Z0123456789"}, "A DNS record needs both"),
    "an address for an existing topic": (
        {"NotificationEmail": "ops@company.com", "NotificationTopicArn": "arn:aws:sns:eu-central-1:111122223333:ops"},
        "NotificationEmail needs an empty NotificationTopicArn",
    ),
}
ACCEPTED = {
    "the defaults": {},
    "only the functions": {"DeployNode": "no", **dict.fromkeys(NODE, "")},
    "an adopted group": {"DeployNode": "no", "AdoptedGroupName": "dtr", **dict.fromkeys(NODE, "")},
    "only the alarms of an adopted group": {
        "DeployFunctions": "no",
        "DeployNode": "no",
        "AdoptedGroupName": "dtr",
        **dict.fromkeys(NODE, ""),
    },
    "arm64 on Graviton": {"Architecture": "arm64", "InstanceType": "t4g.medium"},
    "an encrypted replica": {"ReplicaBucketArn": REPLICA, "KmsKeyArn": KEY, "ReplicaKmsKeyArn": KEY},
    "a host name": {"HostedZoneId": "Z0123456789", "HostName": "hub.company.com"},
}


@pytest.mark.parametrize("case", REFUSED)
def test_contradictory_parameters_are_refused(case, shipped):
    parameters, message = REFUSED[case]
    refusals = shipped.resolved(**parameters).refusals()
    assert len(refusals) == 1 and message in refusals[0]


@pytest.mark.parametrize("case", ACCEPTED)
def test_valid_combinations_are_accepted(case, shipped):
    assert shipped.resolved(**ACCEPTED[case]).refusals() == []


def test_the_console_form_has_every_parameter_once_with_label_and_description(shipped):
    declared = shipped.raw["Parameters"]
    form = shipped.raw["Metadata"]["AWS::CloudFormation::Interface"]
    listed = [name for group in form["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(listed) == sorted(declared)
    assert form["ParameterLabels"].keys() == declared.keys()
    assert all(parameter.get("Description") for parameter in declared.values())
    assert [name for name, parameter in declared.items() if "Default" not in parameter] == ["BackupBucketName"]


def test_at_least_two_subnets_are_required(shipped):
    for name in ("NodeSubnets", "BalancerSubnets"):
        pattern = shipped.raw["Parameters"][name]["AllowedPattern"]
        assert re.fullmatch(pattern, "subnet-0a,subnet-0b") and not re.fullmatch(pattern, "subnet-0a")


def test_every_default_matches_its_pattern(shipped):
    for name, parameter in shipped.raw["Parameters"].items():
        if "AllowedPattern" in parameter and "Default" in parameter:
            assert re.fullmatch(parameter["AllowedPattern"], parameter["Default"]), name
        if "AllowedValues" in parameter:
            assert parameter["Default"] in parameter["AllowedValues"], name


def test_a_parameter_in_user_data_cannot_end_its_here_document(shipped):
    template = str(shipped.raw["Resources"]["NodeTemplate"])
    used = {name for name in shipped.raw["Parameters"] if f"${{{name}}}" in template or f"'{name}'" in template}
    assert {"ConfigurationPaths", "StartCommand", "PostgresContainer", "ApplicationName"} <= used
    for name in used:
        parameter = shipped.raw["Parameters"][name]
        if parameter["Type"] == "String" and "AllowedValues" not in parameter:
            for hostile in ("/a\nSETTINGS\nreboot", '["a"]\nSETTINGS\nreboot', "a\nSETTINGS\nreboot"):
                assert not re.fullmatch(parameter["AllowedPattern"], hostile), name
