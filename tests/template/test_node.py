"""User data for several sets of parameters, checked with the programs that read it on a node."""

import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from checks.node import node_settings, user_data, written_files
from template import ROOT

AGENT = Path(os.environ.get("REKINDLE_NODE", ROOT / "target/debug/rekindle-node"))

PARAMETERS = {
    "the defaults": {},
    "Postgres starts by itself": {"StartPostgresCommand": "", "StopCommand": "", "HealthCommand": ""},
    "no saved images": {"SavedImageContainers": ""},
    "no commands": {"StartPostgresCommand": "", "StartCommand": "", "StopCommand": "", "HealthCommand": ""},
    "arguments with quotes and spaces": {"StartCommand": """["bash", "-c", 'docker start "a b" && echo "it''s"']""".replace("''", "")},
    "a list of databases, a slow start": {"PostgresDatabases": "registry,notary-server", "HealthTimeoutSeconds": "600"},
    "one path, another application": {"ConfigurationPaths": "/etc/harbor", "ApplicationName": "harbor-2", "PostgresUser": "app_user"},
}


def check(tmp_path, settings):
    """Runs `rekindle-node check` on the settings."""
    file = tmp_path / "etc/rekindle/node.toml"
    file.parent.mkdir(parents=True)
    file.write_text(settings)
    assert AGENT.exists(), f"{AGENT} is missing: run `cargo build --bins`, or set REKINDLE_NODE to the path of the agent"
    return subprocess.run([AGENT, "check"], env={"REKINDLE_ROOT": str(tmp_path)}, capture_output=True, text=True)


@pytest.mark.parametrize("case", PARAMETERS)
def test_the_agent_accepts_the_settings(case, shipped, tmp_path):
    settings = node_settings(shipped, **PARAMETERS[case])
    result = check(tmp_path, settings)
    assert result.returncode == 0, f"{result.stdout}{result.stderr}\n{settings}"


def test_the_agent_refuses_broken_settings(shipped, tmp_path):
    result = check(tmp_path, node_settings(shipped, StartCommand='["docker", start]'))
    assert result.returncode == 11, result.stdout + result.stderr


@pytest.mark.parametrize("file", sorted((ROOT / "settings").glob("*.toml")), ids=lambda file: file.name)
def test_the_agent_accepts_the_shipped_settings(file, tmp_path):
    result = check(tmp_path, file.read_text())
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_settings_have_application_bucket_and_region(shipped):
    settings = tomllib.loads(node_settings(shipped, ApplicationName="harbor"))
    assert (settings["application"], settings["bucket"], settings["region"]) == ("harbor", "rekindle-backups", "eu-central-1")


def test_the_settings_have_the_optional_parameters(shipped):
    settings = tomllib.loads(node_settings(shipped, **PARAMETERS["a list of databases, a slow start"]))
    assert settings["postgres"]["databases"] == ["registry", "notary-server"]
    assert settings["commands"]["health_timeout_seconds"] == 600


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
def test_user_data_is_a_bash_script(parameters, shipped):
    script = user_data(shipped, **parameters)
    assert script.startswith("#!/bin/bash\n") and len(script.encode()) < 16384
    result = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_user_data_writes_valid_configurations(shipped):
    files = written_files(user_data(shipped))
    assert json.loads(files["/etc/docker/daemon.json"])["live-restore"] is True
    agent = json.loads(files["/opt/aws/amazon-cloudwatch-agent/etc/rekindle.json"])
    assert agent["metrics"]["append_dimensions"]["AutoScalingGroupName"] == "${aws:AutoScalingGroupName}"
    assert set(agent["metrics"]["metrics_collected"]) == {"disk", "mem", "swap"}
    assert "upgrade_type = security" in files["/etc/dnf/automatic.conf"]
