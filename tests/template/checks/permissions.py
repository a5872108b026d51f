"""Roles: exactly the actions that the code calls, on resources as narrow as AWS allows."""

import iam
import rust_source
from template import OPTIONS, Template

ROLES = {"BackupRole": "functions/backup", "RestoreRole": "functions/restore", "NodeRole": "node"}

# The action of an operation, where its name differs.
ACTIONS_OF = {
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
}
# Statements that the code does not call, by Sid, each with the reason why it is needed.
NOT_CALLED_BY_CODE = {
    "WriteLogs": "Lambda writes the function's output to its log group",
    "SendFailedEvents": "Lambda sends invocations that failed after all retries to the queue",
    "UseKmsKeyThroughS3": "S3 uses the key on behalf of the caller",
    "ListTheAgent": "aws:downloadContent of the SSM agent lists the prefix",
    "FetchTheAgent": "aws:downloadContent of the SSM agent fetches the agent",
    "PublishNodeMetrics": "the CloudWatch agent sends metrics",
    "ReadInstanceTags": "the CloudWatch agent reads the dimension AutoScalingGroupName from the tags",
    "BulkData": "the application uses its bulk data bucket",
    "BulkDataBucket": "the application uses its bulk data bucket",
}


def statements(template, role):
    """Returns the statements of a role's own policy."""
    [policy] = template.resolved(**OPTIONS).of_type("AWS::IAM::Role")[role]["Policies"]
    return policy["PolicyDocument"]["Statement"]


def needed(folder):
    """Returns the actions that a program needs for its calls."""
    actions = {ACTIONS_OF.get(operation, operation) for operation in rust_source.operations_of(folder)}
    if "s3:GetObject" in actions and rust_source.reads_versions(folder):
        actions.add("s3:GetObjectVersion")
    return actions


def minimal(template: Template):
    """Each role allows exactly the operations that its program calls."""
    found = []
    for role, folder in ROLES.items():
        allowed = set()
        for statement in statements(template, role):
            if statement["Effect"] == "Allow" and statement["Sid"] not in NOT_CALLED_BY_CODE:
                allowed |= set(iam.as_list(statement["Action"]))
        missing, surplus = needed(folder) - allowed, allowed - needed(folder)
        found += [f"{role} does not allow {action}, which {folder} calls" for action in sorted(missing)]
        found += [f"{role} allows {action}, which {folder} does not call" for action in sorted(surplus)]
    return found


def known(template: Template):
    """Every action exists, and only actions without resource-level permissions are allowed on every resource."""
    found = []
    resolved = template.resolved(**OPTIONS, ReplicaBucketArn="arn:aws:s3:::replica", ReplicaKmsKeyArn=OPTIONS["KmsKeyArn"])
    for where, statement in iam.all_statements(resolved):
        for action in iam.as_list(statement["Action"]):
            if not iam.exists(action):
                found.append(f"{where}: the action {action} does not exist")
            elif statement["Effect"] == "Allow" and statement.get("Resource") == "*" and iam.resource_types(action):
                found.append(f"{where}: {action} is allowed on every resource; restrict it to {iam.resource_types(action)}")
    return found
