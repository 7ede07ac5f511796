"""What the documents say: tables are those of the result files, figures those of the code, links lead somewhere."""

import ast
import dataclasses
import json
import re
import urllib.parse

import pytest

from anyorder_jax.config import Config
from benchmarks import figures, tables
from pages import PAGES, ROOT, prose, read, without_code


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
        ('r.json\n  columns=a where="a=x|z;\n  b=1234.5" caption="A\n  b."', "| a |\n|---|\n| x |\n\nTable: A b."),
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


def test_figures_are_as_drawn():
    for name, draw in figures.FIGURES.items():
        is_same = (figures.FOLDER / f"{name}.svg").read_text(encoding="utf-8") == draw()
        assert is_same, f"{name}: run python -m benchmarks.figures"


def anchors(page):
    """What links may name behind a #: the headings of a page, as GitHub and the site write them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    words = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in words}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_something_that_is_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if urllib.parse.urlsplit(target).scheme:
            continue
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(path.relative_to(ROOT)), f"{page}: {target}"


def test_links_to_nothing_are_found():
    assert "glossary" in anchors("docs/concepts.md") and "nothing" not in anchors("docs/concepts.md")
    assert "why-is-my-loss" in anchors("docs/questions.md")


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_are_there(page):
    """In backticks: what lies in one of our folders."""
    rooms = "anyorder_jax|benchmarks|configs|conversion|docs|experiments|launch|tests"
    for name in re.findall(rf"`((?:{rooms})/[\w./-]*\w)(?:::\w+)?`", without_code(page)):
        assert (ROOT / name).exists() or name.endswith(".pdf"), f"{page}: {name}"


SECTIONS = {
    section.name: {key.name for key in dataclasses.fields(section.default_factory)}
    for section in dataclasses.fields(Config)
    if dataclasses.is_dataclass(section.default_factory)
}
FILES = ("json", "jsonl", "log", "png", "py", "sbatch")


@pytest.mark.parametrize("page", PAGES)
def test_keys_that_a_page_names_exist(page):
    assert {"data", "masking", "loss", "train"} <= set(SECTIONS)
    pattern = rf"`(?:--)?(config\.)?({'|'.join(SECTIONS)})\.(\w+)(?:=[^`]*)?`"
    for is_key, section, name in re.findall(pattern, read(page)):
        if name in SECTIONS[section] or (name in FILES and not is_key):
            continue
        module = ROOT / "anyorder_jax" / f"{section}.py"  # `optimizer.noise`: a function of ours
        assert not is_key and f"def {name}(" in module.read_text(encoding="utf-8"), f"{page}: {section}.{name}"


def test_paragraphs_of_the_readme_have_three_numbers_at_most():
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "", prose("README.md")))
    for paragraph in re.split(r"\n\s*\n", text):
        numbers = re.findall(r"(?<![\w.])\d[\d.,]*(?!\w)", paragraph)
        assert len(numbers) <= 3, f"{numbers}: {paragraph}"


def test_every_page_is_in_the_sites_menu():
    menu = read("mkdocs.yml")
    assert [page for page in PAGES if f": {page}\n" not in menu] == []
    named = re.findall(r": ([\w/.]+\.md)$", menu, re.MULTILINE)
    assert [page for page in named if page not in PAGES] == []


def test_build_notes_are_short():
    assert len(read("BUILD_NOTES.md").splitlines()) <= 200


def docstrings():
    """(file, name, docstring) of everything in the two packages that has one."""
    for room in ("anyorder_jax", "conversion"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                has_one = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                if has_one and (text := ast.get_docstring(node)):
                    yield path.relative_to(ROOT), getattr(node, "name", "module"), text


WRITTEN = ("README.md", "README_base.md", "comparison.md")
"""Pages that commands write."""


def test_docstrings_name_documents_that_are_there():
    for path, name, text in docstrings():
        for page in re.findall(r"[\w/]+\.md\b", text):
            assert page in WRITTEN or (ROOT / page).is_file(), f"{path}: {name}: {page}"
        assert not re.search(r"HOUSE STYLE|ARCHITECTURE|floor plan|golden files' README", text), f"{path}: {name}"


def test_docstrings_are_no_riddles():
    """A letter, `Of ...` without what, or for whom without what."""
    riddle = re.compile(r"(\w|The \w+|For (a reader|people)|Of [^.;:]{1,40})\.")
    assert [(str(path), name, text) for path, name, text in docstrings() if riddle.fullmatch(text)] == []
