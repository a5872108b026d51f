"""SSM documents: the parts that no linter checks."""

import json
import re

import re2

import rust_source
from template import ROOT, Template

ACTIONS = {"aws:downloadContent", "aws:runShellScript"}
HEX = "0123456789abcdef"
BACKUP_ID = "20261123T021500.000Z"
CANDIDATE = f"{BACKUP_ID}/0a1b2c3d/{'ab' * 32}/"
# Values as shared/src/command.rs builds them.
ACCEPTED = {
    "OperationId": [BACKUP_ID, "final-i-0123456789abcdef0", "launch-i-0123456789abcdef0", f"before-in-place-{BACKUP_ID}-{BACKUP_ID}", f"in-place-{BACKUP_ID}-{BACKUP_ID}", "launch-i-01234567"],
    "BackupId": [BACKUP_ID, "20991231T235959.999Z"],
    "Purpose": ["scheduled", "manual", "final", "adopt", "pre-restore"],
    "Mode": ["launch", "in-place"],
    "AgentSha256": ["ab" * 32, "0" * 64],
    "FetchId": ["18ea4f5a7d0c3b21", "0" * 16],
    "ExecutionTimeout": ["60", "780", "900", "5100"],
    "Candidates": [
        "none",
        CANDIDATE + "-",
        CANDIDATE + "3HL4kqtJvjVBH40Nrjfkd",
        CANDIDATE + "3sL4kqtJlcpXroDTDmJ.xUZl-ZfZ_5z2",
        ",".join([CANDIDATE + "-", CANDIDATE + "v" * 32, CANDIDATE + "-"]),
    ],
}
HOSTILE = ["'", '"', " ", "\n", "\r\n", "\t", ";", "&", "|", "$", "`", "\\", "(", "<", ">", "*", "{{", "\0", "é"]


def documents(template):
    """Returns the SSM documents by name."""
    return {name: d for name, d in template.resolved().of_type("AWS::SSM::Document").items()}


def purposes():
    """Returns the purposes in the code, which the document must accept."""
    text = rust_source.source(ROOT / "shared/src/command.rs")
    purpose = re.search(r"impl Purpose \{(.*?)\n\}", text, re.DOTALL).group(1)
    return re.findall(r'Self::\w+ => "([a-z-]+)"', purpose)


def parameters(template: Template):
    """allowedPattern accepts every value that the code sends, and no character that is special to a shell.

    SSM applies the pattern twice: the API with Java's regular expressions, the SSM agent with RE2. This check uses RE2.
    """
    found = []
    for name, document in documents(template).items():
        for parameter, declared in document["Content"]["parameters"].items():
            place = f"{name}.{parameter}"
            pattern = declared.get("allowedPattern", "")
            try:
                expression = re2.compile(pattern)
            except re2.error as error:
                found.append(f"{place}: the SSM agent cannot compile the pattern: {error}")
                continue
            if not (pattern.startswith("^") and pattern.endswith("$")):
                found.append(f"{place}: the pattern is not anchored")
            if parameter not in ACCEPTED:
                found.append(f"{place}: ACCEPTED has no values of this parameter; add those that the code sends")
                continue
            accepted = ACCEPTED[parameter] + (purposes() if parameter == "Purpose" else [])
            for value in accepted:
                if not expression.search(value):
                    found.append(f"{place} refuses {value[:60]!r}, which the code sends")
                for hostile in HOSTILE:
                    for spoilt in (value + hostile, hostile + value, value[:3] + hostile + value[3:], hostile):
                        if expression.search(spoilt):
                            found.append(f"{place} accepts {spoilt[:60]!r}")
            if expression.search(""):
                found.append(f"{place} accepts an empty value")
    return found


def shape(template: Template):
    """The documents have the form that SSM and the code need, which cfn-lint does not check."""
    found = []
    code = rust_source.source(ROOT / "shared/src/command.rs")
    step = re.search(r'AGENT_STEP: &str = "(\w+)"', code).group(1)
    named = set(re.findall(r'^const [A-Z_0-9]+: &str = "([A-Z]\w+)";', code, re.MULTILINE))
    declared = set()
    for name, document in documents(template).items():
        content = document["Content"]
        declared |= content["parameters"].keys()
        expected = {"DocumentType": "Command", "TargetType": "/AWS::EC2::Instance", "UpdateMethod": "NewVersion"}
        for field, value in expected.items():
            if document.get(field) != value:
                found.append(f"{name}: {field} is {document.get(field)!r}, not {value!r}")
        if content.get("schemaVersion") != "2.2":
            found.append(f"{name}: schemaVersion is {content.get('schemaVersion')!r}")
        steps = {s["name"]: s for s in content["mainSteps"]}
        for s in content["mainSteps"]:
            if s["action"] not in ACTIONS:
                found.append(f"{name}.{s['name']}: {s['action']} is not an SSM action that Rekindle uses")
        if [s["action"] for s in content["mainSteps"]] != ["aws:downloadContent", "aws:runShellScript"]:
            found.append(f"{name}: the steps must be to fetch the agent and to run it")
            continue
        if content["mainSteps"][0]["inputs"].get("onFailure") != "exit":
            found.append(f"{name}: the agent runs even if the fetch failed; set onFailure to exit")
        if content["mainSteps"][1]["name"] != step:
            found.append(f"{name}: the second step must be named {step}, because the functions read the output of that step")
        used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(content["mainSteps"])))
        if used != content["parameters"].keys():
            found.append(f"{name}: parameters that are undeclared or unused: {sorted(used ^ content['parameters'].keys())}")
        if steps[step]["inputs"].get("timeoutSeconds") != "{{ ExecutionTimeout }}":
            found.append(f"{name}: timeoutSeconds of the agent's step must be ExecutionTimeout")
    if declared != named:
        found.append(f"parameters that only the code or only the documents have: {sorted(declared ^ named)}")
    return found
