"""EventBridge's event patterns, as far as this project uses them. What it does not know is an error, not a match."""


def matches(pattern, event):
    """Tells whether a rule with this pattern is triggered: every field must have one of the pattern's values."""
    for field, wanted in pattern.items():
        if isinstance(wanted, dict):
            inner = event.get(field)
            if not isinstance(inner, dict) or not matches(wanted, inner):
                return False
        elif not isinstance(wanted, list) or not wanted:
            raise ValueError(f"{field}: AWS refuses {wanted!r}, a pattern's value is a list that is not empty")
        elif not _any(wanted, event.get(field)):
            return False
    return True


def _any(wanted, value):
    values = value if isinstance(value, list) else [value]
    for choice in wanted:
        if isinstance(choice, dict):
            raise ValueError(f"the filter {choice!r} is not known to this matcher")
        # Types count: the number 1 is not the text "1".
        if any(type(choice) is type(item) and choice == item for item in values):
            return True
    return False
