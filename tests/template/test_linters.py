"""The linters report nothing but the findings in exceptions.yaml."""

import json
import os
import subprocess
import sys
from pathlib import Path

import parliament
import pytest

from template import OPTIONS, REGION, ROOT, Template, load_yaml

TOOLS = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "AWS_DEFAULT_REGION": REGION, "SAM_CLI_TELEMETRY": "0"}


def run(*command):
    """Returns exit status and output of a command."""
    result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT)
    return result.returncode, result.stdout + result.stderr


@pytest.fixture(scope="session")
def expanded_file(shipped, tmp_path_factory):
    return written(shipped, tmp_path_factory.mktemp("expanded"))


def written(template, folder):
    """Writes the expanded template to a file and returns its path."""
    file = folder / "template.json"
    file.write_text(json.dumps(template.expanded, indent=1))
    return file


def cfn_lint(file):
    return run(TOOLS / "cfn-lint", "--regions", REGION, "--template", file)


def test_cfn_lint_has_no_findings(expanded_file):
    assert cfn_lint(expanded_file) == (0, "")


UNDEFINED = {
    "undefined Ref": ("Queues: [!Ref FailedEvents]", "Queues: [!Ref FailedEvent]", "FailedEvent"),
    "undefined condition": ("    Condition: WithEmail\n", "    Condition: WithMail\n", "WithMail"),
    "misspelt property": ("MessageRetentionPeriod:", "MessageRetentionTime:", "MessageRetentionTime"),
}


@pytest.mark.parametrize("defect", UNDEFINED)
def test_cfn_lint_finds_a_planted_defect(defect, shipped, tmp_path):
    before, after, named = UNDEFINED[defect]
    status, output = cfn_lint(written(shipped.with_defect(before, after), tmp_path))
    assert status != 0 and named in output


def test_sam_accepts_the_template():
    status, output = run(TOOLS / "sam", "validate", "--lint", "--template", ROOT / "template.yaml")
    assert (status, "is a valid SAM Template" in output) == (0, True), output


def test_checkov_reports_exactly_the_accepted_findings(expanded_file):
    checkov = os.environ.get("CHECKOV", TOOLS.parent / "checkov/bin/checkov")
    _, output = run(checkov, "--file", expanded_file, "--framework", "cloudformation", "--skip-download", "--quiet", "--output", "json")
    report = json.loads(output[output.index("{") :])
    assert report["summary"]["passed"] > 50 and report["summary"]["parsing_errors"] == 0
    reported = {(check["check_id"], check["resource"]) for check in report["results"]["failed_checks"]}
    accepted = {(c, r) for entry in load_yaml("exceptions.yaml")["checkov"] for c in entry["checks"] for r in entry["resources"]}
    assert reported == accepted


def role_findings(template: Template):
    """Yields parliament's findings: the issue, the role, and the action or the detail."""
    all_options = {
        **OPTIONS,
        "ReplicaBucketArn": "arn:aws:s3:::replica",
        "BulkDataReplicaBucketArn": "arn:aws:s3:::bulk-data-replica",
        "ReplicaKmsKeyArn": OPTIONS["KmsKeyArn"],
    }
    for name, role in template.resolved(**all_options).of_type("AWS::IAM::Role").items():
        for policy in role["Policies"]:
            for finding in parliament.analyze_policy_string(json.dumps(policy["PolicyDocument"])).findings:
                details = finding.detail if isinstance(finding.detail, list) else [finding.detail]
                for detail in details:
                    yield finding.issue, name, detail.get("action", str(detail)) if isinstance(detail, dict) else str(detail)


def test_parliament_reports_exactly_the_accepted_findings(shipped):
    entries = load_yaml("exceptions.yaml")["parliament"]
    accepted = {(issue, role, entry["about"]) for entry in entries for issue in entry["issues"] for role in entry["roles"]}
    assert set(role_findings(shipped)) == accepted


def test_parliament_finds_a_misspelt_action(shipped):
    template = shipped.with_defect("Action: [ssm:GetParameter, ssm:PutParameter]", "Action: [ssm:GetParameter, ssm:PutParametr]")
    assert any(issue == "UNKNOWN_ACTION" for issue, _, _ in role_findings(template))


def test_every_exception_has_a_reason():
    for linter, entries in load_yaml("exceptions.yaml").items():
        for entry in entries:
            assert len(entry["reason"]) > 40, f"{linter}: {entry}"
