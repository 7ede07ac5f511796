"""What the documents say: tables are those of the result files, links lead somewhere, commands can be called."""

import json

import pytest

from benchmarks import tables

ROOT = tables.ROOT


def test_tables_are_those_of_the_result_files():
    assert [str(path) for path in tables.changed()] == [], "run python -m benchmarks.tables"


def test_results_say_how_they_were_made():
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if "command" in found and "rows" in found and "gpu" not in path.name and path.name != "mixtures.json":
            assert {"commit", "date", "machine", "versions"} <= set(found), path.name
    used = {
        match.split()[0]
        for path in tables.documents()
        for match, _ in tables.TABLE.findall(path.read_text(encoding="utf-8"))
    }
    assert used
    for name in used:
        found = json.loads((ROOT / name).read_text(encoding="utf-8"))
        assert name.startswith("experiments/") or {"command", "commit"} <= set(found), name


SEEDS = {"mean": 0.5, "low": 0.45, "high": 0.55, "values": [0.45, 0.55], "num_seeds": 2}
WIDE = {"mean": 0.5, "low": -0.5, "high": 1.5, "values": [0.4, 0.6], "num_seeds": 2}
PAIR = {"value": -0.5, "low": -0.6, "high": -0.4, "p_holm": 0.031, "num_seeds": 2}


def a_project(folder):
    """A folder with one comparison, one result file, and a document with a table of each."""
    rows = [{"a": "x", "b": 1234.5}, {"a": "y", "b": 0.1234567}]
    (folder / "r.json").write_text(json.dumps({"rows": rows}), encoding="utf-8")
    comparison = {
        "table": {"one": {"greedy success": SEEDS, "nll": SEEDS}, "two": {"greedy success": WIDE}},
        "pairs": {"greedy success": {"two": PAIR}},
    }
    (folder / "c.json").write_text(json.dumps(comparison), encoding="utf-8")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('r.json where="a=y" columns="b = size; a"', "| size | a |\n|---|---|\n| 0.1235 | y |"),
        ("r.json columns=b", "| b |\n|---|\n| 1,234 |\n| 0.1235 |"),
        (
            'c.json columns="two; one = first"',
            "|  | two | first |\n|---|---|---|\n| greedy success | 50.0% (40, 60) | 50.0% ± 5.0 |\n"
            "| nll | – | 0.500 ± 0.050 |",
        ),
        ("c.json kind=pairs", "|  | two |\n|---|---|\n| greedy success | −50.0 [−60.0, −40.0], p = 0.031 |"),
        ("c.json kind=variants rows=one columns=nll", "| trained on | nll |\n|---|---|\n| one | 0.500 ± 0.050 |"),
    ],
)
def test_a_table_is_made_from_what_its_comment_asks(tmp_path, query, expected):
    a_project(tmp_path)
    assert tables.table(query, tmp_path) == expected


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("r.json columns=c", "'c' is none of"),
        ("r.json where=a=z", "no row is like that"),
        ("r.json colour=red", "colour"),
        ("c.json rows=loss", "'loss' is none of"),
        ("c.json kind=tree", "expected measures"),
        ("nowhere.json", "nowhere"),
    ],
)
def test_a_table_that_cannot_be_made_says_why(tmp_path, query, says):
    a_project(tmp_path)
    with pytest.raises(ValueError, match=f"table: .*{says}"):
        tables.filled(f"<!-- table: {query} -->\n<!-- end of table -->", tmp_path)


def test_a_document_that_says_something_else_is_found(tmp_path):
    a_project(tmp_path)
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- table: r.json -->\n| old |\n<!-- end of table -->\nafter\n", encoding="utf-8")
    (found,) = tables.changed(tmp_path).values()
    assert found.startswith("before\n") and found.endswith("\nafter\n") and "| a | b |" in found and "old" not in found
    page.write_text(found, encoding="utf-8")
    assert tables.changed(tmp_path) == {}
