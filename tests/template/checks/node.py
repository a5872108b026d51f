"""User data: what it makes of the parameters."""

import re
import tomllib

from template import ROOT, Template


def user_data(template, **parameters):
    launch = template.resolved(**parameters).of_type("AWS::EC2::LaunchTemplate")["NodeTemplate"]
    return launch["LaunchTemplateData"]["UserData"]


def written_files(script):
    """The files that a script writes from here-documents, by path."""
    written = re.findall(r"cat > (\S+) <<'(\w+)'\n(.*?)^ *\2$", script, re.MULTILINE | re.DOTALL)
    return {path: content for path, _, content in written}


def node_settings(template, **parameters):
    return written_files(user_data(template, **parameters))["/etc/rekindle/node.toml"]


def default_settings(template: Template):
    """The parameters' defaults are the settings of DTR 1.4 as settings/ has them."""
    rendered = tomllib.loads(node_settings(template))
    example = tomllib.loads((ROOT / "settings/dtr-1.4.toml").read_text())
    found = []
    for section in ("configuration", "postgres", "images", "commands"):
        for key, value in rendered[section].items():
            if example[section].get(key) != value:
                found.append(f"[{section}] {key} is {value!r}, and {example[section].get(key)!r} in settings/dtr-1.4.toml")
        missing = {"commands": {"start_postgres", "start", "stop", "health"}}.get(section, set()) - rendered[section].keys()
        found += [f"[{section}] {key} of settings/dtr-1.4.toml has no default" for key in sorted(missing)]
    return found
