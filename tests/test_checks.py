"""System checks: Django has nothing to complain about in the settings as they come."""

import pytest
from django.core import checks


@pytest.mark.django_db
def test_no_system_check_complains() -> None:
    assert checks.run_checks(databases=["default"]) == []
