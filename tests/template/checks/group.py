"""The protected group: one node at a time, reachable only from its load balancer."""

from template import Template


def one_at_a_time(template: Template):
    """No replacement by Auto Scaling runs two nodes at once."""
    group = template.resolved().of_type("AWS::AutoScaling::AutoScalingGroup")["Group"]
    found = [f"{size} is {group[size]}" for size in ("MinSize", "MaxSize", "DesiredCapacity") if group[size] != "1"]
    if group.get("InstanceMaintenancePolicy") != {"MinHealthyPercentage": 0, "MaxHealthyPercentage": 100}:
        found.append(f"the maintenance policy is {group.get('InstanceMaintenancePolicy')}: a replacement may overlap")
    if group.get("HealthCheckType") != "ELB":
        found.append("a node whose application does not respond is not replaced")
    return found


def default_results(template: Template):
    """An expired hook abandons a launching instance; it keeps a terminating one only if KeepInstanceOfFailedBackup is yes."""
    found = []
    for keeps, terminate in (("no", "CONTINUE"), ("yes", "ABANDON")):
        group = template.resolved(KeepInstanceOfFailedBackup=keeps).of_type("AWS::AutoScaling::AutoScalingGroup")["Group"]
        results = {hook["LifecycleHookName"]: hook["DefaultResult"] for hook in group["LifecycleHookSpecificationList"]}
        if results != {"rekindle-launch": "ABANDON", "rekindle-terminate": terminate}:
            found.append(f"with KeepInstanceOfFailedBackup={keeps}, the default results of the hooks are {results}")
        if ("InstanceLifecyclePolicy" in group) != (keeps == "yes"):
            found.append(f"with KeepInstanceOfFailedBackup={keeps}, the lifecycle policy is {group.get('InstanceLifecyclePolicy')}")
    return found


def access(template: Template):
    """IMDSv2 only, encrypted volumes, no key pair; port 443 is open from CorporateCidr to the load balancer to the node."""
    found = []
    resolved = template.resolved()
    launch = resolved.of_type("AWS::EC2::LaunchTemplate")["NodeTemplate"]["LaunchTemplateData"]
    if launch["MetadataOptions"]["HttpTokens"] != "required":
        found.append("the node accepts IMDSv1")
    if not all(device["Ebs"].get("Encrypted") is True for device in launch["BlockDeviceMappings"]):
        found.append("a volume is not encrypted")
    if "KeyName" in launch:
        found.append("the node has a key pair")
    groups = resolved.of_type("AWS::EC2::SecurityGroup")
    rules = [(name, rule) for name, group in groups.items() for rule in group.get("SecurityGroupIngress", [])]
    rules += [(rule["GroupId"], rule) for rule in resolved.of_type("AWS::EC2::SecurityGroupIngress").values()]
    ingress = sorted((n, r["FromPort"], r["ToPort"], r.get("CidrIp") or r["SourceSecurityGroupId"]) for n, r in rules)
    expected = [
        ("BalancerSecurityGroup", 443, 443, resolved.values["CorporateCidr"]),
        ("NodeSecurityGroup", 443, 443, "BalancerSecurityGroup"),
    ]
    if ingress != expected:
        found.append(f"the ingress rules are {ingress}")
    return found


# Parameters of a deployment, resources that it must have, and resources that it must not have.
DEPLOYMENTS = {
    "functions and node": ({}, "BackupFunction Group BackupBucket BackupTooOld Topic", "BulkDataBucket Record ReplicationRole"),
    "node only": (
        {"DeployFunctions": "no", "CreateBackupBucket": "no"},
        "Group NodeRole BackupTooOld Balancer",
        "BackupFunction RestoreFunction AgentLayer BackupDocument BackupRole BackupBucket FunctionErrors",
    ),
    "functions only": (
        {"DeployNode": "no"},
        "BackupFunction BackupBucket AnyFailure",
        "Group Balancer NodeRole DiskFull BackupTooOld Dashboard",
    ),
    "functions, and an adopted group": (
        {"DeployNode": "no", "AdoptedGroupName": "dtr"},
        "BackupFunction BackupTooOld DiskFull NodeMissing",
        "Group",
    ),
    "adopted group only": (
        {"DeployNode": "no", "DeployFunctions": "no", "AdoptedGroupName": "dtr", "CreateBackupBucket": "no"},
        "BackupTooOld NodeMissing Dashboard",
        "Group BackupFunction BackupBucket",
    ),
    "bulk data bucket": ({"BulkDataBucketName": "bulk-data"}, "BulkDataBucket BulkDataBucketPolicy", "ReplicationRole"),
    "replica": ({"ReplicaBucketArn": "arn:aws:s3:::replica"}, "ReplicationRole", "BulkDataBucket"),
    "existing topic": ({"NotificationTopicArn": "arn:aws:sns:eu-central-1:111122223333:ops"}, "Group", "Topic Subscription"),
}


def deployments(template: Template):
    """Each set of parameters creates the resources that it needs, and no others."""
    found = []
    for name, (parameters, present, absent) in DEPLOYMENTS.items():
        created = template.resolved(**parameters).resources.keys()
        found += [f"{name}: {resource} is missing" for resource in present.split() if resource not in created]
        found += [f"{name}: {resource} must not exist" for resource in absent.split() if resource in created]
    return found
