"""Permissions: requests that each role must be allowed or denied, as in the table of ARCHITECTURE.md."""

import pytest

from iam import allows, denies
from checks.permissions import statements
from template import ACCOUNT, BUCKET, OPTIONS, REGION

BUCKET_ARN = f"arn:aws:s3:::{BUCKET['BackupBucketName']}"
BULK_DATA = f"arn:aws:s3:::{OPTIONS['BulkDataBucketName']}"
INSTANCE = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/i-0123456789abcdef0"
GROUP = f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:autoScalingGroup:9f0c2a51:autoScalingGroupName/dtr"
DOCUMENT = f"arn:aws:ssm:{REGION}:{ACCOUNT}:document/"
PARAMETERS = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/"
OWN_BACKUP = "backups/dtr/2026-11-23/20261123T021500.000Z/0a1b2c3d/index.json"
OTHER_BACKUP = OWN_BACKUP.replace("dtr", "other")
MANIFEST = "manifests/dtr/2026-11-23/20261123T021500.000Z.json"
QUARANTINED = MANIFEST.replace("manifests", "quarantine")
PIN = "pins/dtr/20261123T021500.000Z"
COMMIT = "commits/20261123T021500.000Z/dtr"
AGENT = f"agent/{'ab' * 32}/rekindle-node"
TAGGED = {"ssm__resourceTag/rekindle__application": "dtr", "aws__ResourceTag/rekindle__application": "dtr"}

MAY = [
    ("NodeRole", "s3:PutObject", f"{BUCKET_ARN}/{OWN_BACKUP}", {}),
    ("NodeRole", "s3:AbortMultipartUpload", f"{BUCKET_ARN}/{OWN_BACKUP}", {}),
    ("NodeRole", "s3:GetObjectVersion", f"{BUCKET_ARN}/{OWN_BACKUP}", {}),
    ("NodeRole", "s3:GetObject", f"{BUCKET_ARN}/{AGENT}", {}),
    ("NodeRole", "s3:ListBucket", BUCKET_ARN, {"s3__prefix": AGENT}),
    ("NodeRole", "s3:DeleteObject", f"{BULK_DATA}/docker/registry/v2/blob", {}),
    ("NodeRole", "cloudwatch:PutMetricData", "*", {"cloudwatch__namespace": "CWAgent"}),
    ("BackupRole", "ssm:SendCommand", f"{DOCUMENT}rekindle-backup", {}),
    ("BackupRole", "ssm:SendCommand", INSTANCE, TAGGED),
    ("BackupRole", "autoscaling:CompleteLifecycleAction", GROUP, TAGGED),
    ("BackupRole", "s3:PutObject", f"{BUCKET_ARN}/{MANIFEST}", {}),
    ("BackupRole", "s3:PutObject", f"{BUCKET_ARN}/{AGENT}", {}),
    ("BackupRole", "s3:PutObject", f"{BUCKET_ARN}/{QUARANTINED}", {}),
    ("BackupRole", "s3:PutObject", f"{BUCKET_ARN}/{PIN}", {}),
    ("BackupRole", "s3:PutObject", f"{BUCKET_ARN}/{COMMIT}", {}),
    ("BackupRole", "s3:GetObject", f"{BUCKET_ARN}/{OWN_BACKUP}", {}),
    ("BackupRole", "s3:GetObject", f"{BUCKET_ARN}/{QUARANTINED}", {}),
    ("BackupRole", "s3:DeleteObject", f"{BUCKET_ARN}/{OWN_BACKUP}", {}),
    ("BackupRole", "s3:DeleteObject", f"{BUCKET_ARN}/{MANIFEST}", {}),
    ("BackupRole", "s3:DeleteObject", f"{BUCKET_ARN}/{QUARANTINED}", {}),
    ("BackupRole", "s3:DeleteObject", f"{BUCKET_ARN}/{PIN}", {}),
    ("BackupRole", "s3:ListBucket", BUCKET_ARN, {"s3__prefix": "backups/dtr/"}),
    ("BackupRole", "s3:ListBucket", BUCKET_ARN, {"s3__prefix": "manifests/dtr/"}),
    ("BackupRole", "s3:ListBucket", BUCKET_ARN, {"s3__prefix": "quarantine/dtr/"}),
    ("BackupRole", "s3:ListBucket", BUCKET_ARN, {"s3__prefix": "pins/dtr/"}),
    ("BackupRole", "s3:ListBucket", BUCKET_ARN, {"s3__prefix": "commits/"}),
    ("BackupRole", "s3:ListBucket", BUCKET_ARN, {}),
    ("BackupRole", "ssm:PutParameter", f"{PARAMETERS}rekindle/dtr", {}),
    ("RestoreRole", "ssm:SendCommand", f"{DOCUMENT}rekindle-restore", {}),
    ("RestoreRole", "ssm:SendCommand", INSTANCE, TAGGED),
    ("RestoreRole", "autoscaling:RecordLifecycleActionHeartbeat", GROUP, TAGGED),
    ("RestoreRole", "autoscaling:SuspendProcesses", GROUP, TAGGED),
    ("RestoreRole", "autoscaling:ResumeProcesses", GROUP, TAGGED),
    ("RestoreRole", "ssm:PutParameter", f"{PARAMETERS}rekindle/dtr/breaker", {}),
    ("RestoreRole", "s3:GetObject", f"{BUCKET_ARN}/{MANIFEST}", {}),
    ("RestoreRole", "s3:GetObject", f"{BUCKET_ARN}/{QUARANTINED}", {}),
    ("RestoreRole", "s3:PutObject", f"{BUCKET_ARN}/{AGENT}", {}),
    ("RestoreRole", "ssm:GetParameter", f"{PARAMETERS}rekindle/dtr", {}),
]
MAY_NOT = [
    ("NodeRole", "s3:PutObject", f"{BUCKET_ARN}/{OTHER_BACKUP}", {}),
    ("NodeRole", "s3:PutObject", f"{BUCKET_ARN}/{MANIFEST}", {}),
    ("NodeRole", "s3:PutObject", f"{BUCKET_ARN}/{AGENT}", {}),
    ("NodeRole", "s3:PutObject", f"{BUCKET_ARN}/{QUARANTINED}", {}),
    ("NodeRole", "s3:PutObject", f"{BUCKET_ARN}/{PIN}", {}),
    ("NodeRole", "s3:PutObject", f"{BUCKET_ARN}/{COMMIT}", {}),
    ("NodeRole", "s3:GetObject", f"{BUCKET_ARN}/{OTHER_BACKUP}", {}),
    ("NodeRole", "s3:GetObject", f"{BUCKET_ARN}/{MANIFEST}", {}),
    ("NodeRole", "s3:DeleteObject", f"{BUCKET_ARN}/{OWN_BACKUP}", {}),
    ("NodeRole", "s3:DeleteObjectVersion", f"{BUCKET_ARN}/{OWN_BACKUP}", {}),
    ("NodeRole", "s3:DeleteObjectVersion", f"{BULK_DATA}/docker/registry/v2/blob", {}),
    ("NodeRole", "s3:ListBucket", BUCKET_ARN, {"s3__prefix": "backups/"}),
    ("NodeRole", "s3:ListBucket", BUCKET_ARN, {}),
    ("NodeRole", "ssm:GetParameter", f"{PARAMETERS}rekindle/dtr", {}),
    ("NodeRole", "ssm:SendCommand", INSTANCE, TAGGED),
    ("NodeRole", "cloudwatch:PutMetricData", "*", {"cloudwatch__namespace": "Rekindle"}),
    ("BackupRole", "ssm:SendCommand", f"{DOCUMENT}rekindle-restore", {}),
    ("BackupRole", "ssm:SendCommand", f"{DOCUMENT}AWS-RunShellScript", {}),
    ("BackupRole", "ssm:SendCommand", INSTANCE, {}),
    ("BackupRole", "autoscaling:CompleteLifecycleAction", GROUP, {}),
    ("BackupRole", "autoscaling:SuspendProcesses", GROUP, TAGGED),
    ("BackupRole", "s3:PutObject", f"{BUCKET_ARN}/{OWN_BACKUP}", {}),
    ("BackupRole", "s3:DeleteObject", f"{BUCKET_ARN}/{AGENT}", {}),
    ("BackupRole", "s3:DeleteObject", f"{BUCKET_ARN}/{COMMIT}", {}),
    ("BackupRole", "s3:DeleteObjectVersion", f"{BUCKET_ARN}/{MANIFEST}", {}),
    ("BackupRole", "s3:DeleteObjectVersion", f"{BUCKET_ARN}/{OWN_BACKUP}", {}),
    ("BackupRole", "s3:ListBucket", BUCKET_ARN, {"s3__prefix": "agent/"}),
    ("BackupRole", "ssm:PutParameter", f"{PARAMETERS}other", {}),
    ("RestoreRole", "ssm:SendCommand", f"{DOCUMENT}rekindle-backup", {}),
    ("RestoreRole", "ssm:SendCommand", INSTANCE, {}),
    ("RestoreRole", "autoscaling:CompleteLifecycleAction", GROUP, {}),
    ("RestoreRole", "autoscaling:SuspendProcesses", GROUP, {}),
    ("RestoreRole", "autoscaling:ResumeProcesses", GROUP, {}),
    ("RestoreRole", "s3:PutObject", f"{BUCKET_ARN}/{MANIFEST}", {}),
    ("RestoreRole", "s3:DeleteObject", f"{BUCKET_ARN}/{MANIFEST}", {}),
    ("RestoreRole", "s3:PutObject", f"{BUCKET_ARN}/{QUARANTINED}", {}),
    ("RestoreRole", "s3:PutObject", f"{BUCKET_ARN}/{COMMIT}", {}),
    ("RestoreRole", "s3:GetObject", f"{BUCKET_ARN}/{OWN_BACKUP}", {}),
    ("RestoreRole", "ssm:PutParameter", f"{PARAMETERS}rekindle/dtr", {}),
    ("RestoreRole", "ssm:PutParameter", f"{PARAMETERS}rekindle/breaker", {}),
]


@pytest.mark.parametrize("role, action, resource, context", MAY)
def test_a_role_is_allowed_what_it_needs(role, action, resource, context, shipped):
    assert allows(statements(shipped, role), action, resource, **context)


@pytest.mark.parametrize("role, action, resource, context", MAY_NOT)
def test_a_role_is_denied_everything_else(role, action, resource, context, shipped):
    assert not allows(statements(shipped, role), action, resource, **context)


def bucket_policy(shipped, name):
    return shipped.resolved(**OPTIONS).of_type("AWS::S3::BucketPolicy")[name]["PolicyDocument"]["Statement"]


# For each request: s3:ObjectCreationOperation, If-None-Match, and whether the bucket policy denies it.
WRITES = {
    "PutObject": ("true", None, True),
    "PutObject with If-None-Match": ("true", "*", False),
    "CreateMultipartUpload": ("false", None, False),
    "UploadPart": ("false", None, False),
    "CompleteMultipartUpload": ("true", None, True),
    "CompleteMultipartUpload with If-None-Match": ("true", "*", False),
}


@pytest.mark.parametrize("write", WRITES)
def test_an_object_of_a_backup_cannot_be_overwritten(write, shipped):
    creates, if_none_match, denied = WRITES[write]
    context = {"aws__SecureTransport": "true", "s3__ObjectCreationOperation": creates}
    context |= {"s3__if-none-match": if_none_match} if if_none_match else {}
    policy = bucket_policy(shipped, "BackupBucketPolicy")
    assert denies(policy, "s3:PutObject", f"{BUCKET_ARN}/{OWN_BACKUP}", **context) == denied


@pytest.mark.parametrize("policy, arn", [("BackupBucketPolicy", BUCKET_ARN), ("BulkDataBucketPolicy", BULK_DATA)])
def test_buckets_deny_requests_without_tls(policy, arn, shipped):
    statements = bucket_policy(shipped, policy)
    for resource in (arn, f"{arn}/{OWN_BACKUP}"):
        assert denies(statements, "s3:GetObject", resource, aws__SecureTransport="false")
        assert not denies(statements, "s3:GetObject", resource, aws__SecureTransport="true")


def test_every_role_has_the_permissions_boundary(shipped):
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
    resolved = shipped.resolved(**OPTIONS, PermissionsBoundaryArn=boundary, ReplicaBucketArn="arn:aws:s3:::replica")
    roles = resolved.of_type("AWS::IAM::Role")
    assert roles.keys() == {"BackupRole", "RestoreRole", "NodeRole", "ReplicationRole"}
    assert {role.get("PermissionsBoundary") for role in roles.values()} == {boundary}


def test_the_only_managed_policy_is_the_ssm_agents(shipped):
    roles = shipped.resolved().of_type("AWS::IAM::Role").values()
    managed = {arn for role in roles for arn in role.get("ManagedPolicyArns", [])}
    assert managed == {"arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"}
