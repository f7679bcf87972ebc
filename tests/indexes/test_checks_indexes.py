"""System checks of the settings that name Valkey."""

import pytest
from django.core.checks import run_checks
from django.test import override_settings


def found(**settings: object) -> list[str]:
    with override_settings(**settings):
        ours = [message for message in run_checks() if str(message.id).startswith("indexes.")]
    assert all(message.hint for message in ours)
    return sorted(str(message.id) for message in ours)


def test_the_settings_of_the_tests_are_sound():
    assert found() == []


@pytest.mark.parametrize(
    "url",
    ["valkey://h", "valkeys://u:p@h:6380/0", "redis://h:1/2", "rediss://[::1]:6379", "valkey://h/0?ssl_ca_certs=x"],
)  # fmt: skip
def test_addresses_that_name_a_server(url: str):
    assert found(VALKEY_CLUSTER=False, VALKEY_URL=url, VALKEY_REPLICA_URLS=[url]) == []


@pytest.mark.parametrize(
    "url",
    ["", "h:6379", "http://h", "valkey://", "valkey://h:port", "valkey://h:99999", "unix:///s"],
)
def test_addresses_that_do_not(url: str):
    settings = {"VALKEY_CLUSTER": False}
    assert found(**settings, VALKEY_URL=url) == ["indexes.E001"]
    assert found(**settings, VALKEY_REPLICA_URLS=["valkey://fine", url]) == ["indexes.E001"]


def test_a_cluster_names_its_own_replicas():
    settings = {"VALKEY_CLUSTER": True, "VALKEY_URL": "valkey://cluster", "CELERY_BROKER_URL": "redis://b"}  # fmt: skip
    assert found(**settings) == []
    assert found(**settings, VALKEY_REPLICA_URLS=["valkey://h"]) == ["indexes.E002"]


def test_a_cluster_has_one_database():
    settings = {"VALKEY_CLUSTER": True, "CELERY_BROKER_URL": "redis://b"}
    assert found(**settings, VALKEY_URL="valkey://cluster/0") == []
    assert found(**settings, VALKEY_URL="valkey://cluster/3") == ["indexes.E003"]


@pytest.mark.parametrize(
    ("namespace", "problems"),
    [("rp", []), ("my-shop_2", []), ("", ["indexes.E004"]), ("a b", ["indexes.E004"]), ("{a}", ["indexes.E004"])],
)  # fmt: skip
def test_the_namespace_becomes_part_of_index_names(namespace: str, problems: list[str]):
    assert found(VALKEY_NAMESPACE=namespace) == problems


def test_celery_cannot_use_a_cluster():
    url = "valkey://u:p@cluster:6379/0"
    settings = {"VALKEY_CLUSTER": True, "VALKEY_URL": url}
    assert found(**settings, CELERY_BROKER_URL=url.replace("valkey", "redis")) == ["indexes.E005"]
    assert found(**settings, CELERY_BROKER_URL="redis://other:6379/0") == []
