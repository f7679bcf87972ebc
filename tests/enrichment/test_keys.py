import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrichment.errors import EnrichmentRejected, KeyTemplateInvalid
from enrichment.keys import fill_template, template_names

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("template", "names", "key"),
    [
        ("USER#{user_id}", ("user_id",), "USER#u1"),
        ("{user_id}", ("user_id",), "u1"),
        ("TRENDING", (), "TRENDING"),
        ("{region}#{user_id}#{region}", ("region", "user_id"), "us#u1#us"),
        ("TRENDING#{context.region}", ("region",), "TRENDING#us"),
        ("{region}{context.region}", ("region",), "usus"),
        ("{ user_id }", ("user_id",), "u1"),
        ("S#{session_id}", ("session_id",), "S#s1"),
        ("{a key with spaces}", ("a key with spaces",), "odd"),
        ("", (), ""),
    ],
)
def test_a_template_is_filled(template: str, names: tuple[str, ...], key: str):
    values = {"user_id": "u1", "session_id": "s1", "region": "us", "a key with spaces": "odd"}

    assert template_names(template) == names
    assert fill_template(template, values) == key


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("USER#{user_id", "braces"),
        ("USER#user_id}", "braces"),
        ("USER#{{user_id}}", "braces"),
        ("{user_{id}}", "braces"),
        ("}{", "braces"),
        ("USER#{}", "no name"),
        ("USER#{ }", "no name"),
        ("{context.}", "no name"),
        ("{context.user_id}", "write {user_id}"),
        ("{" + "x" * 65 + "}", "64 characters"),
    ],
)
def test_a_wrong_template_says_what_is_wrong(template: str, said: str):
    with pytest.raises(KeyTemplateInvalid, match=said):
        template_names(template)


@pytest.mark.parametrize("values", [{}, {"user_id": ""}])
def test_a_missing_value_is_named(values: dict[str, str]):
    with pytest.raises(EnrichmentRejected, match="user_id"):
        fill_template("USER#{user_id}", values)


@given(value=st.text(min_size=1))
def test_a_value_is_never_read_as_a_template(value: str):
    assert fill_template("a{user_id}b", {"user_id": value}) == f"a{value}b"
    assert fill_template("{x}{user_id}", {"x": "{user_id}", "user_id": value}).startswith(
        "{user_id}"
    )
