"""Orchestrates a restore of a launched instance like AWS's samples: it polls every five seconds."""

import json
import sys
import time

import boto3

group, hook, instance, document, parameters = sys.argv[1:]
autoscaling, ssm = boto3.client("autoscaling"), boto3.client("ssm")
naps = 0


def nap():
    global naps
    naps += 1
    time.sleep(5)


while not ssm.describe_instance_information(
    Filters=[{"Key": "InstanceIds", "Values": [instance]}]
)["InstanceInformationList"]:
    nap()
command = ssm.send_command(
    InstanceIds=[instance], DocumentName=document, Parameters=json.loads(parameters)
)["Command"]["CommandId"]
while True:
    nap()
    found = ssm.list_command_invocations(CommandId=command, InstanceId=instance)
    status = [one["Status"] for one in found["CommandInvocations"]]
    if status and status[0] not in ("Pending", "InProgress", "Delayed"):
        break
autoscaling.complete_lifecycle_action(
    AutoScalingGroupName=group,
    LifecycleHookName=hook,
    InstanceId=instance,
    LifecycleActionResult="CONTINUE" if status[0] == "Success" else "ABANDON",
)
print(json.dumps({"status": status[0], "naps": naps}))
