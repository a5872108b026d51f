"""Matches EventBridge's event patterns, as far as this project uses them. Anything else in a pattern is an error."""


def matches(pattern, event):
    """Returns whether the pattern matches the event: every field must have one of the pattern's values.

    Raises `ValueError` if AWS refuses the pattern, or if this matcher does not implement it.
    """
    for field, wanted in pattern.items():
        if isinstance(wanted, dict):
            inner = event.get(field)
            if not isinstance(inner, dict) or not matches(wanted, inner):
                return False
        elif not isinstance(wanted, list) or not wanted:
            raise ValueError(f"{field}: AWS refuses {wanted!r}: a pattern's value must be a list that is not empty")
        elif not _any(wanted, event.get(field)):
            return False
    return True


def _any(wanted, value):
    values = value if isinstance(value, list) else [value]
    for choice in wanted:
        if isinstance(choice, dict):
            raise ValueError(f"this matcher does not implement the filter {choice!r}")
        # EventBridge compares types, too: the number 1 does not match the string "1".
        if any(type(choice) is type(item) and choice == item for item in values):
            return True
    return False
