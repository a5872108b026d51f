"""What the tests share."""

import pytest

from template import Template


@pytest.fixture(scope="session")
def shipped():
    """The template as it is deployed."""
    return Template.shipped()
