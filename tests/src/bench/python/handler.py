"""A function's first step in Python: clients of the same three services, and one call for the first event."""

import json
import os
import urllib.request

import boto3

clients = [boto3.client(name) for name in ("autoscaling", "ssm", "s3")]
runtime = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation"

while True:
    with urllib.request.urlopen(f"{runtime}/next") as answer:
        request = answer.headers["Lambda-Runtime-Aws-Request-Id"]
        event = json.load(answer)
    groups = clients[0].describe_auto_scaling_groups()["AutoScalingGroups"]
    body = json.dumps({"groups": len(groups)}).encode()
    urllib.request.urlopen(f"{runtime}/{request}/response", data=body).close()
