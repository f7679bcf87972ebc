"""Judgments from CSV: what is read, what is refused and where, and that an upload is all or nothing."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes import judgments
from indexes.judgments import JudgmentError, Sheet
from indexes.models import JudgedQuery

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).map(
    lambda text: " ".join(text.split())
)


def sheet(text: str | bytes) -> Sheet:
    return judgments.read(io.BytesIO(text if isinstance(text, bytes) else text.encode()))


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(JudgmentError) as caught:
        sheet(text)
    return caught.value.problems


@pytest.mark.parametrize(
    "text",
    [
        "query,product_id,grade\nred shoes,sku-1,3\n",
        "\ufeffquery,product_id,grade\r\nred shoes,sku-1,3\r\n",
        "query;product_id;grade\nred shoes;sku-1;3",
        "Grade\tproduct_id\tnote\tQuery\n3.0\tsku-1\tgood\tred shoes",
        'query,product_id,grade\n" red  shoes ",sku-1, 3 \n\n,,\n',
    ],
)
def test_a_file_is_read_however_it_was_saved(text):
    assert sheet(text) == Sheet({("red shoes", "sku-1"): 3.0}, 0)


def test_the_last_of_two_lines_counts():
    found = sheet("query,product_id,grade\na,1,3\na,2,1\na,1,0\n")
    assert found == Sheet({("a", "1"): 0.0, ("a", "2"): 1.0}, 1)
    assert found.queries == 1


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a,1", "it has 2 of 3 columns"),
        (",1,3", "query is empty"),
        ("a,,3", "product_id is empty"),
        ("a,1,", 'grade "" is not a number from 0 to 100'),
        ("a,1,good", 'grade "good" is not a number from 0 to 100'),
        ("a,1,nan", 'grade "nan" is not a number from 0 to 100'),
        ("a,1,-1", 'grade "-1" is not a number from 0 to 100'),
        ("a,1,101", 'grade "101" is not a number from 0 to 100'),
        (f"{'q' * 301},1,1", "query has more than 300 characters"),
        (f"a,{'p' * 257},1", "product_id has more than 256 characters"),
        ("a\0,1,1", "query has a NUL character"),
    ],
)
def test_a_bad_line_is_named(line, problem):
    assert problems(f'query,product_id,grade\n"two\nlines",1,3\n{line}\n') == [
        f"Line 4: {problem}."
    ]


def test_the_first_problems_are_told():
    found = problems("query,product_id,grade\n" + ",1,3\n" * 30)
    assert len(found) == 11
    assert found[9] == "Line 11: query is empty."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it lacks query, product_id, grade"),
        ("query,product,grade\na,1,3\n", "it lacks product_id."),
        ("query,product_id,grade\n", "no judgments under it"),
        ("query,product_id,grade\nschön,1,3\n".encode("latin-1"), "not in UTF-8"),
        (b"\xff\xfeq\0u\0", "not in UTF-8"),
    ],
)
def test_what_is_no_list_of_judgments(text, problem):
    [found] = problems(text)
    assert problem in found


def test_a_cell_longer_than_csv_allows():
    before = csv.field_size_limit(1000)
    try:
        assert "cannot be read as CSV" in problems(f"query,product_id,grade\n{'q' * 1001},1,1")[0]
    finally:
        csv.field_size_limit(before)


def test_more_lines_than_a_list_may_have(monkeypatch):
    monkeypatch.setattr(judgments, "MAX_ROWS", 2)
    text = "query,product_id,grade\na,1,3\na,1,2\n"
    assert len(sheet(text).grades) == 1
    assert "more than 2 judgments" in problems(text + "a,2,1\n")[0]


@given(st.dictionaries(st.tuples(WORDS, WORDS), st.integers(0, 100), min_size=1, max_size=5))
def test_what_a_spreadsheet_writes_is_read_back(grades):
    grades = {pair: grade for pair, grade in grades.items() if all(pair)}
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(judgments.COLUMNS)
    writer.writerows((*pair, grade) for pair, grade in grades.items())
    if grades:
        assert sheet(file.getvalue()).grades == grades


def test_a_list_takes_the_place_of_the_one_before(new_definition):
    definition = new_definition([{"id": "1", "title": "a"}])
    judgments.replace(definition, Sheet({("a", "1"): 3.0, ("b", "1"): 1.0}, 0))
    for query in "ab":
        JudgedQuery.objects.create(
            definition=definition, fingerprint="f", query=query, vector=b"1234"
        )
    judgments.replace(definition, Sheet({("b", "2"): 2.0}, 0))
    rows = definition.judgments.values_list("query", "product_id", "grade")
    assert list(rows) == [("b", "2", 2.0)]
    # The vector of a query that is judged no more is not kept.
    assert [one.query for one in definition.judged_queries.all()] == ["b"]
    assert judgments.remove(definition) == 1
    assert not definition.judgments.exists()
    assert not definition.judged_queries.exists()
