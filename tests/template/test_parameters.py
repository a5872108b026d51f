"""What CloudFormation asks for, and what it refuses before anything is created."""

import re

import pytest

from template import NODE, OPTIONS

KEY = OPTIONS["KmsKeyArn"]
REPLICA = "arn:aws:s3:::replica"
REFUSED = {
    "nothing at all": ({"DeployFunctions": "no", "DeployNode": "no"}, "Deploy the functions, a node, or both"),
    "a node without a VPC": ({"VpcId": ""}, "A node needs VpcId"),
    "a node without subnets": ({"NodeSubnets": ""}, "A node needs NodeSubnets"),
    "a balancer without subnets": ({"BalancerSubnets": ""}, "A node needs BalancerSubnets"),
    "a node and an adopted group": ({"AdoptedGroupName": "dtr"}, "Watch an existing group only"),
    "arm64 on a t3": ({"Architecture": "arm64"}, "InstanceType is not arm64"),
    "access logs without TLS": ({"AccessLogsBucket": "logs"}, "Only a TLS listener writes access logs"),
    "a replica of somebody else's bucket": ({"ReplicaBucketArn": REPLICA, "CreateBackupBucket": "no"}, "Replication is set up"),
    "a replica of no images": ({"BulkDataReplicaBucketArn": REPLICA}, "Replication is set up"),
    "an encrypted replica without a key": ({"ReplicaBucketArn": REPLICA, "KmsKeyArn": KEY}, "give ReplicaKmsKeyArn"),
    "a host name without a zone": ({"HostName": "hub.company.com"}, "A record needs both"),
    "a zone without a host name": ({"HostedZoneId": "Z0123456789"}, "A record needs both"),
    "an address for somebody else's topic": (
        {"NotificationEmail": "ops@company.com", "NotificationTopicArn": "arn:aws:sns:eu-central-1:111122223333:ops"},
        "Subscribe the address",
    ),
}
ACCEPTED = {
    "the defaults": {},
    "the functions alone": {"DeployNode": "no", **dict.fromkeys(NODE, "")},
    "an adopted group": {"DeployNode": "no", "AdoptedGroupName": "dtr", **dict.fromkeys(NODE, "")},
    "the alarms of one more adopted group": {
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
def test_combinations_without_sense_are_refused(case, shipped):
    parameters, words = REFUSED[case]
    refusals = shipped.resolved(**parameters).refusals()
    assert len(refusals) == 1 and words in refusals[0]


@pytest.mark.parametrize("case", ACCEPTED)
def test_sensible_combinations_are_accepted(case, shipped):
    assert shipped.resolved(**ACCEPTED[case]).refusals() == []


def test_the_form_has_every_parameter_once_with_label_and_description(shipped):
    declared = shipped.raw["Parameters"]
    form = shipped.raw["Metadata"]["AWS::CloudFormation::Interface"]
    listed = [name for group in form["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(listed) == sorted(declared)
    assert form["ParameterLabels"].keys() == declared.keys()
    assert all(parameter.get("Description") for parameter in declared.values())
    assert [name for name, parameter in declared.items() if "Default" not in parameter] == ["BackupBucketName"]


def test_a_node_has_two_subnets(shipped):
    for name in ("NodeSubnets", "BalancerSubnets"):
        pattern = shipped.raw["Parameters"][name]["AllowedPattern"]
        assert re.fullmatch(pattern, "subnet-0a,subnet-0b") and not re.fullmatch(pattern, "subnet-0a")


def test_every_default_has_its_own_pattern(shipped):
    for name, parameter in shipped.raw["Parameters"].items():
        if "AllowedPattern" in parameter and "Default" in parameter:
            assert re.fullmatch(parameter["AllowedPattern"], parameter["Default"]), name
        if "AllowedValues" in parameter:
            assert parameter["Default"] in parameter["AllowedValues"], name


def test_text_that_reaches_user_data_cannot_end_its_here_document(shipped):
    template = str(shipped.raw["Resources"]["NodeTemplate"])
    used = {name for name in shipped.raw["Parameters"] if f"${{{name}}}" in template or f"'{name}'" in template}
    assert {"ConfigurationPaths", "StartCommand", "PostgresContainer", "ApplicationName"} <= used
    for name in used:
        parameter = shipped.raw["Parameters"][name]
        if parameter["Type"] == "String" and "AllowedValues" not in parameter:
            for hostile in ("/a\nSETTINGS\nreboot", '["a"]\nSETTINGS\nreboot', "a\nSETTINGS\nreboot"):
                assert not re.fullmatch(parameter["AllowedPattern"], hostile), name
