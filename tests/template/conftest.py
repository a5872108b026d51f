"""Fixtures that the tests share."""

import pytest

from template import Template


@pytest.fixture(scope="session")
def shipped():
    """Returns template.yaml as it is deployed."""
    return Template.shipped()
