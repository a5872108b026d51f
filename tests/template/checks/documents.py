"""SSM documents: what no linter looks into."""

import json
import re

import re2

import rust_source
from template import ROOT, Template

ACTIONS = {"aws:downloadContent", "aws:runShellScript"}
HEX = "0123456789abcdef"
BACKUP_ID = "20261123T021500.000Z"
CANDIDATE = f"{BACKUP_ID}/0a1b2c3d/{'ab' * 32}/"
# What shared/src/command.rs builds.
ACCEPTED = {
    "OperationId": [BACKUP_ID, "final-i-0123456789abcdef0", "launch-i-0123456789abcdef0", f"before-in-place-{BACKUP_ID}-{BACKUP_ID}", "a" * 64],
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
    return {name: d for name, d in template.resolved().of_type("AWS::SSM::Document").items()}


def purposes():
    """The purposes that the code knows, which the document must take."""
    text = rust_source.source(ROOT / "shared/src/command.rs")
    purpose = re.search(r"impl Purpose \{(.*?)\n\}", text, re.DOTALL).group(1)
    return re.findall(r'Self::\w+ => "([a-z-]+)"', purpose)


def parameters(template: Template):
    """allowedPattern takes what the code sends, and nothing that a shell could read as more than a word.

    SSM checks it twice: with Java's expressions in the API and with RE2 in the agent. RE2 decides here.
    """
    found = []
    for name, document in documents(template).items():
        for parameter, declared in document["Content"]["parameters"].items():
            place = f"{name}.{parameter}"
            pattern = declared.get("allowedPattern", "")
            try:
                expression = re2.compile(pattern)
            except re2.error as error:
                found.append(f"{place}: the agent cannot compile the pattern: {error}")
                continue
            if not (pattern.startswith("^") and pattern.endswith("$")):
                found.append(f"{place}: the pattern is not anchored")
            if parameter not in ACCEPTED:
                found.append(f"{place}: the tests do not know what the code sends")
                continue
            accepted = ACCEPTED[parameter] + (purposes() if parameter == "Purpose" else [])
            for value in accepted:
                if not expression.search(value):
                    found.append(f"{place} refuses {value[:60]!r}, which the code sends")
                for hostile in HOSTILE:
                    for spoilt in (value + hostile, hostile + value, value[:3] + hostile + value[3:], hostile):
                        if expression.search(spoilt):
                            found.append(f"{place} admits {spoilt[:60]!r}")
            if expression.search(""):
                found.append(f"{place} admits nothing at all")
    return found


def shape(template: Template):
    """What SSM wants of a document, which cfn-lint does not look into."""
    found = []
    code = rust_source.source(ROOT / "shared/src/command.rs")
    step = re.search(r'AGENT_STEP: &str = "(\w+)"', code).group(1)
    named = set(re.findall(r'^const [A-Z_0-9]+: &str = "([A-Z]\w+)";', code, re.MULTILINE))
    asked = set()
    for name, document in documents(template).items():
        content = document["Content"]
        asked |= content["parameters"].keys()
        expected = {"DocumentType": "Command", "TargetType": "/AWS::EC2::Instance", "UpdateMethod": "NewVersion"}
        for field, value in expected.items():
            if document.get(field) != value:
                found.append(f"{name}: {field} is {document.get(field)!r}, not {value!r}")
        if content.get("schemaVersion") != "2.2":
            found.append(f"{name}: schemaVersion is {content.get('schemaVersion')!r}")
        steps = {s["name"]: s for s in content["mainSteps"]}
        for s in content["mainSteps"]:
            if s["action"] not in ACTIONS:
                found.append(f"{name}.{s['name']}: {s['action']} is no action of SSM that Rekindle uses")
        if [s["action"] for s in content["mainSteps"]] != ["aws:downloadContent", "aws:runShellScript"]:
            found.append(f"{name}: the steps are not to fetch the agent and to run it")
            continue
        if content["mainSteps"][0]["inputs"].get("onFailure") != "exit":
            found.append(f"{name}: the agent is run although it was not fetched")
        if content["mainSteps"][1]["name"] != step:
            found.append(f"{name}: the agent's step is not {step}, by which the functions ask for its output")
        used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(content["mainSteps"])))
        if used != content["parameters"].keys():
            found.append(f"{name}: parameters and their uses differ: {sorted(used ^ content['parameters'].keys())}")
        if steps[step]["inputs"].get("timeoutSeconds") != "{{ ExecutionTimeout }}":
            found.append(f"{name}: the agent's step does not have the command's execution timeout")
    if asked != named:
        found.append(f"parameters that code and documents do not share: {sorted(asked ^ named)}")
    return found
