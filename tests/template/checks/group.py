"""The protected group: one node at a time, closed to everybody but its balancer."""

from template import Template


def one_at_a_time(template: Template):
    """Nothing that Auto Scaling does by itself runs two nodes at once."""
    group = template.resolved().of_type("AWS::AutoScaling::AutoScalingGroup")["Group"]
    found = [f"{size} is {group[size]}" for size in ("MinSize", "MaxSize", "DesiredCapacity") if group[size] != "1"]
    if group.get("InstanceMaintenancePolicy") != {"MinHealthyPercentage": 0, "MaxHealthyPercentage": 100}:
        found.append(f"the maintenance policy is {group.get('InstanceMaintenancePolicy')}: a replacement may overlap")
    if group.get("HealthCheckType") != "ELB":
        found.append("a node whose application is dead is not replaced")
    return found


def abandoned_launches(template: Template):
    """A hook that nobody answers replaces a launching instance; a terminating one is kept where the parameter says so."""
    found = []
    for keeps, terminate in (("no", "CONTINUE"), ("yes", "ABANDON")):
        group = template.resolved(KeepInstanceOfFailedBackup=keeps).of_type("AWS::AutoScaling::AutoScalingGroup")["Group"]
        results = {hook["LifecycleHookName"]: hook["DefaultResult"] for hook in group["LifecycleHookSpecificationList"]}
        if results != {"rekindle-launch": "ABANDON", "rekindle-terminate": terminate}:
            found.append(f"without an answer the hooks come to {results} where instances are kept: {keeps}")
        if ("InstanceLifecyclePolicy" in group) != (keeps == "yes"):
            found.append(f"an abandoned terminate hook does not do what the parameter says: {keeps}")
    return found


def closed(template: Template):
    """IMDSv2 only, an encrypted volume, no key pair, and one way in: 443, from the balancer, from the given network."""
    found = []
    resolved = template.resolved()
    launch = resolved.of_type("AWS::EC2::LaunchTemplate")["NodeTemplate"]["LaunchTemplateData"]
    if launch["MetadataOptions"]["HttpTokens"] != "required":
        found.append("the node answers IMDSv1")
    if not all(device["Ebs"].get("Encrypted") is True for device in launch["BlockDeviceMappings"]):
        found.append("a volume is not encrypted")
    if "KeyName" in launch:
        found.append("the node has a key pair")
    groups = resolved.of_type("AWS::EC2::SecurityGroup")
    ways = [(name, way) for name, group in groups.items() for way in group.get("SecurityGroupIngress", [])]
    ways += [(way["GroupId"], way) for way in resolved.of_type("AWS::EC2::SecurityGroupIngress").values()]
    seen = sorted((n, w["FromPort"], w["ToPort"], w.get("CidrIp") or w["SourceSecurityGroupId"]) for n, w in ways)
    expected = [
        ("BalancerSecurityGroup", 443, 443, resolved.values["CorporateCidr"]),
        ("NodeSecurityGroup", 443, 443, "BalancerSecurityGroup"),
    ]
    if seen != expected:
        found.append(f"the ways in are {seen}")
    return found


# What a deployment has: a resource that must be there, and one that must not.
DEPLOYMENTS = {
    "everything": ({}, "BackupFunction Group BackupBucket BackupTooOld Topic", "BulkDataBucket Record ReplicationRole"),
    "a further node": (
        {"DeployFunctions": "no", "CreateBackupBucket": "no"},
        "Group NodeRole BackupTooOld Balancer",
        "BackupFunction RestoreFunction AgentLayer BackupDocument BackupRole BackupBucket FunctionErrors",
    ),
    "the functions": (
        {"DeployNode": "no"},
        "BackupFunction BackupBucket SomethingFailed",
        "Group Balancer NodeRole DiskFull BackupTooOld Dashboard",
    ),
    "the functions, watching a group": (
        {"DeployNode": "no", "AdoptedGroupName": "dtr"},
        "BackupFunction BackupTooOld DiskFull NodeMissing",
        "Group",
    ),
    "watching one more group": (
        {"DeployNode": "no", "DeployFunctions": "no", "AdoptedGroupName": "dtr", "CreateBackupBucket": "no"},
        "BackupTooOld NodeMissing Dashboard",
        "Group BackupFunction BackupBucket",
    ),
    "a bucket of images": ({"BulkDataBucketName": "images"}, "BulkDataBucket BulkDataBucketPolicy", "ReplicationRole"),
    "a replica": ({"ReplicaBucketArn": "arn:aws:s3:::replica"}, "ReplicationRole", "BulkDataBucket"),
    "a topic that exists": ({"NotificationTopicArn": "arn:aws:sns:eu-central-1:111122223333:ops"}, "Group", "Topic Subscription"),
}


def deployments(template: Template):
    """Each choice of parameters makes what it says."""
    found = []
    for name, (parameters, present, absent) in DEPLOYMENTS.items():
        made = template.resolved(**parameters).resources.keys()
        found += [f"{name}: {resource} is missing" for resource in present.split() if resource not in made]
        found += [f"{name}: {resource} is made" for resource in absent.split() if resource in made]
    return found
