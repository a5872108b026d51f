"""IAM: which actions exist, and whether a set of statements allows one request."""

import fnmatch
import functools
import json
from importlib import resources


def as_list(value):
    """Returns the value as a list; IAM accepts a single value in place of a list of one."""
    return value if isinstance(value, list) else [value]


@functools.cache
def _services():
    """Returns AWS' service authorization reference from parliament's package."""
    text = (resources.files("parliament") / "iam_definition.json").read_text()
    return {service["prefix"]: service for service in json.loads(text)}


@functools.cache
def _privilege(action):
    service, _, name = action.partition(":")
    privileges = _services().get(service, {"privileges": []})["privileges"]
    return next((p for p in privileges if p["privilege"] == name), None)


def exists(action):
    """Returns whether AWS has the action."""
    service, _, name = action.partition(":")
    if name == "*":
        return service in _services()
    return _privilege(action) is not None


def resource_types(action):
    """Returns the resource types that a statement can name for an action."""
    kinds = {r["resource_type"].strip("*") for r in _privilege(action)["resource_types"]}
    return sorted(kinds - {""})


def all_statements(resolved):
    """Yields every statement of a resolved template, with the names of its resource and its Sid."""
    for name, resource in resolved.resources.items():
        properties = resource.get("Properties", {})
        documents = [p["PolicyDocument"] for p in properties.get("Policies", [])]
        documents += [properties[key] for key in ("PolicyDocument", "AssumeRolePolicyDocument") if key in properties]
        for document in documents:
            for statement in document["Statement"]:
                yield f"{name}.{statement.get('Sid', '')}", statement


def allows(statements, action, resource, **context):
    """Returns whether the statements allow one request. Keys of the context have `__` in place of `:`."""
    context = {key.replace("__", ":"): value for key, value in context.items()}
    effects = {
        statement["Effect"]
        for statement in statements
        if any(fnmatch.fnmatchcase(action.lower(), a.lower()) for a in as_list(statement["Action"]))
        and any(fnmatch.fnmatchcase(resource, r) for r in as_list(statement["Resource"]))
        and _conditions_hold(statement.get("Condition", {}), context)
    }
    return "Allow" in effects and "Deny" not in effects


def denies(statements, action, resource, **context):
    """Returns whether the statements deny a request explicitly, as a bucket policy does."""
    as_allowed = [{"Effect": "Allow", "Action": "*", "Resource": "*"}, *statements]
    return not allows(as_allowed, action, resource, **context)


def _conditions_hold(conditions, context):
    return all(
        _holds(operator, context.get(key), as_list(values)) for operator, keys in conditions.items() for key, values in keys.items()
    )


def _holds(operator, value, wanted):
    if operator == "Null":
        return (value is None) == (wanted == ["true"])
    if operator.endswith("IfExists"):
        return value is None or _holds(operator.removesuffix("IfExists"), value, wanted)
    if value is None:
        return False
    if operator in ("StringEquals", "Bool"):
        return value in wanted
    if operator in ("StringLike", "ArnLike"):
        return any(fnmatch.fnmatchcase(value, pattern) for pattern in wanted)
    raise ValueError(f"the tests do not implement the condition operator {operator}")
