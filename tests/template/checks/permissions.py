"""Roles: exactly what the code calls, on nothing wider than AWS takes."""

import iam
import rust_source
from template import OPTIONS, Template

ROLES = {"BackupRole": "functions/backup", "RestoreRole": "functions/restore", "NodeRole": "node"}

# What an operation needs where its action has another name.
ACTIONS_OF = {
    "s3:HeadObject": "s3:GetObject",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:DeleteObjects": "s3:DeleteObject",
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
    "BulkData": "the application's own bucket of bulk data",
    "BulkDataBucket": "the application's own bucket of bulk data",
}


def statements(template, role):
    [policy] = template.resolved(**OPTIONS).of_type("AWS::IAM::Role")[role]["Policies"]
    return policy["PolicyDocument"]["Statement"]


def needed(folder):
    actions = {ACTIONS_OF.get(operation, operation) for operation in rust_source.operations_of(folder)}
    if "s3:GetObject" in actions and rust_source.reads_versions(folder):
        actions.add("s3:GetObjectVersion")
    return actions


def exact(template: Template):
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


def known(template: Template):
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
