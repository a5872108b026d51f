"""User data: the files that it writes for given parameters."""

import re
import tomllib

from template import ROOT, Template


def user_data(template, **parameters):
    """Returns the user data script of the node."""
    launch = template.resolved(**parameters).of_type("AWS::EC2::LaunchTemplate")["NodeTemplate"]
    return launch["LaunchTemplateData"]["UserData"]


def written_files(script):
    """Returns the files that a script writes from here-documents, by path."""
    written = re.findall(r"cat > (\S+) <<'(\w+)'\n(.*?)^ *\2$", script, re.MULTILINE | re.DOTALL)
    return {path: content for path, _, content in written}


def node_settings(template, **parameters):
    """Returns the agent's settings as user data writes them."""
    return written_files(user_data(template, **parameters))["/etc/rekindle/node.toml"]


def default_settings(template: Template):
    """The default parameters result in the settings of settings/dtr-1.4.toml."""
    rendered = tomllib.loads(node_settings(template))
    example = tomllib.loads((ROOT / "settings/dtr-1.4.toml").read_text())
    found = []
    for section in ("configuration", "postgres", "images", "commands"):
        for key, value in rendered[section].items():
            if example[section].get(key) != value:
                found.append(f"[{section}] {key} is {value!r}, but {example[section].get(key)!r} in settings/dtr-1.4.toml")
        missing = {"commands": {"start_postgres", "start", "stop", "health"}}.get(section, set()) - rendered[section].keys()
        found += [f"[{section}] {key} of settings/dtr-1.4.toml is not set by default" for key in sorted(missing)]
    return found
