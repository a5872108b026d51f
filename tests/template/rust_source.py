"""Finds AWS calls, constants and metrics in the text of the Rust sources.

The AWS SDK names each method after its operation, and botocore lists all operations, so calls are found without a
compiler: `.send_command()` in a file that uses `aws_sdk_ssm` is ssm:SendCommand.
"""

import functools
import re

from botocore import xform_name
from botocore.session import Session

from template import ROOT

SERVICES = {"aws_sdk_autoscaling": "autoscaling", "aws_sdk_s3": "s3", "aws_sdk_ssm": "ssm"}
_FUNCTION = re.compile(r"^ *(?:pub(?:\([a-z]+\))? )?(?:const )?(?:async )?fn (\w+)", re.MULTILINE)
_TESTS = re.compile(r"^#\[cfg\(test\)\]\n *mod \w+ \{", re.MULTILINE)


@functools.cache
def operations(service):
    """Returns every operation of a service, by its name in snake case."""
    model = Session().get_service_model(service)
    return {xform_name(name): name for name in model.operation_names}


def source(path):
    """Returns a file's text without tests and comments."""
    text = path.read_text()
    tests = _TESTS.search(text)
    text = text[: tests.start()] if tests else text
    return re.sub(r"//.*", "", text)


def sources(folder):
    """Returns the text of every file of a folder that is compiled into the product, by path."""
    files = sorted((ROOT / folder).rglob("*.rs"))
    return {file: source(file) for file in files if not _is_test(file)}


def _is_test(file):
    """Returns whether a file has unit tests or their helpers."""
    return file.stem.endswith("tests") or file.name == "testing.rs" or "tests" in file.relative_to(ROOT).parts


def called(text, service):
    """Returns the operations of a service that a text calls."""
    known = operations(service)
    return {f"{service}:{known[name]}" for name in re.findall(r"\.\s*([a-z0-9_]+)\(\)", text) if name in known}


def services_of(text):
    """Returns the services whose SDK a text uses."""
    return {service for crate, service in SERVICES.items() if crate in text}


class Shared:
    """The crate `shared`, function by function, so that a program counts as calling only what it reaches."""

    def __init__(self):
        self.functions = {}
        for file, text in sources("shared/src").items():
            module = file.stem if file.stem != "mod" else file.parent.name
            starts = [(match.start(), match.group(1)) for match in _FUNCTION.finditer(text)]
            ends = [start for start, _ in starts[1:]] + [len(text)]
            for (start, name), end in zip(starts, ends):
                body = text[start:end]
                calls = set().union(*(called(body, service) for service in services_of(text)))
                self.functions.setdefault((module, name), (set(), []))[0].update(calls)
                self.functions[module, name][1].append(body)

    def reached_from(self, text, module=None):
        """Returns the functions that a text names, and all functions that those name in turn."""
        found, waiting = set(), [(text, module)]
        while waiting:
            text, module = waiting.pop()
            named = {(m, f) for m, f in re.findall(r"\b(\w+)::(\w+)", text)}
            imported = re.findall(r"\b(\w+)::\{([^{}]*)\}", text)
            named |= {(m, f.strip()) for m, names in imported for f in names.split(",")}
            if module:
                named |= {(module, name) for name in re.findall(r"\b(\w+)\(", text)}
            for key in named & self.functions.keys() - found:
                found.add(key)
                waiting.extend((body, key[0]) for body in self.functions[key][1])
        return found


@functools.cache
def shared():
    return Shared()


def operations_of(folder):
    """Returns every AWS operation that a program calls, directly or through the crate `shared`."""
    texts = sources(folder)
    found = set()
    for text in texts.values():
        # One file often creates a client and another one uses it, so each file is searched for all services' calls.
        for service in set().union(*map(services_of, texts.values())):
            found |= called(text, service)
        for key in shared().reached_from(text):
            found |= shared().functions[key][0]
    return found


def reads_versions(folder):
    """Returns whether a program reads a certain version of an S3 object."""
    text = "\n".join(sources(folder).values())
    own = re.search(r"\.(set_)?version_id\(\s*\w", text)
    through_shared = re.search(r"\bs3::(read|head)\((?:[^;]*?)version", text)
    return bool(own or through_shared)


def environment_names():
    """Returns the environment variables that the functions read, by the name of their constant."""
    text = source(ROOT / "shared/src/function/env.rs")
    return dict(re.findall(r'pub const (\w+): &str = "(REKINDLE_\w+)"', text))


def budget():
    """Returns the constants of the timing budget."""
    text = source(ROOT / "shared/src/budget.rs")
    return {name: int(value.replace("_", "")) for name, value in re.findall(r"pub const (\w+): u32 = ([0-9_]+);", text)}


def kinds():
    """Returns the words of the functions' own kinds of failure."""
    return set(re.findall(r'^    (\w+), "', source(ROOT / "shared/src/kind.rs"), re.MULTILINE))


def metrics():
    """Returns the metrics that the functions print, with the sets of dimensions of each."""
    text = source(ROOT / "shared/src/function/metrics.rs")
    measured = {name: {("Application",)} for name in re.findall(r'Self::\w+ => "(\w+)"', text) if name not in UNITS}
    failures = re.search(r'"Name": "(Failures)"', text)
    if failures:
        measured[failures.group(1)] = {(), ("Application",), ("Application", "Kind"), ("Kind",)}
    return measured


UNITS = {"Bytes", "Count", "Seconds"}
