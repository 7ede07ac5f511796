"""The house keeps its shape: imports point down, one file says PartitionSpec, nothing unsafe is loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"files", "command", "paths", "terminal"},  # the standard library alone
    {"recipes"},
    {"types", "config", "keys", "process", "digest", "hardware", "hlo", "rendering", "profiling", "progress"},
    {"masking"},
    {"data", "environments", "sharding", "metrics", "statistics", "compiled"},
    {"model", "formats"},
    {"run_directory"},
    {"loss", "optimizer", "flops", "pretrained", "collected", "ingestion"},
    {"provenance"},
    {"task"},
    {"state"},
    {"step", "decode", "checkpoint", "weights"},
    {"cached_decode", "prefix_decode"},
    {"acting", "asking", "health"},
    {"evaluation"},
    {"training"},
    {"fit_evaluation"},
    {"generate", "ingest", "train", "evaluate", "collect", "ablate", "demo", "export_episodes", "fit"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted((ROOT / "anyorder_jax").rglob("*.py"))


def imported_rooms(path):
    """Rooms of anyorder_jax that a file imports, also inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("anyorder_jax.")}
    return rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    room = path.relative_to(ROOT / "anyorder_jax").parts[0].removesuffix(".py")
    if room == "__init__" or path.name in ("show.py", "join.py"):  # run, never imported
        return
    for other in imported_rooms(path) - {room}:
        below = FLOOR_OF[other] < FLOOR_OF[room] or other == "types"  # the vocabulary stands under floor 0
        assert below, f"{path.name} (floor {FLOOR_OF[room]}) imports {other}"


def test_one_file_says_partition_spec():
    for path in MODULES:
        assert path.name == "sharding.py" or "PartitionSpec" not in path.read_text(encoding="utf-8"), path


def test_one_file_draws_bars_and_one_renames_what_is_written():
    paths = [*MODULES, *(ROOT / "conversion").rglob("*.py")]
    for words, home in (("tqdm", {"progress.py"}), ("os.replace(", {"files.py"})):
        assert {path.name for path in paths if words in path.read_text(encoding="utf-8")} == home


@pytest.mark.parametrize("word", ["trust_remote_code=True", "pickle.load", "torch.load", "config.get("])
def test_nothing_unsafe(word):
    for path in MODULES + sorted((ROOT / "conversion").rglob("*.py")):
        assert word not in path.read_text(encoding="utf-8"), path


SOURCES = MODULES + sorted(
    p for p in (ROOT / "conversion").rglob("*.py") if "code" not in p.parts
)  # that is one file for users


def functions(path, is_public_only=False):
    """(name, parameters without self, docstring) of every function of a file that is in no other function."""

    def inside(node, is_private):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from inside(child, is_private or child.name.startswith("_"))
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                if is_public_only and (is_private or child.name.startswith("_")):
                    continue
                given = [*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs]
                names = [argument.arg for argument in given if argument.arg not in ("self", "cls")]
                yield child.name, names, ast.get_docstring(child) or ""

    yield from inside(ast.parse(path.read_text(encoding="utf-8")), False)


def test_files_are_short():
    """95% have 320 lines or less."""
    lengths = sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES)
    assert lengths[int(0.95 * len(lengths))] <= 320, lengths[-12:]


def test_functions_have_eight_parameters_at_most():
    assert [f"{path.name}: {name}" for path in SOURCES for name, names, _ in functions(path) if len(names) > 8] == []


def test_public_functions_explain_their_arguments():
    """Of those with four and more, 90% name every one under Args."""
    many = [
        (f"{path.name}: {name}", all(argument in about.partition("Args:")[2] for argument in names))
        for path in SOURCES
        for name, names, about in functions(path, is_public_only=True)
        if len(names) >= 4
    ]
    lacking = [name for name, is_explained in many if not is_explained]
    assert len(lacking) <= 0.1 * len(many), lacking


@pytest.mark.parametrize(("module", "most"), [("anyorder_jax.train", 45), ("anyorder_jax.training.loop", 68)])
def test_train_reaches_few_modules(module, most):
    """The door itself; and what a run of grids from random weights loads, once it has read its configuration."""
    code = f"import {module}, sys; print(*sorted(m for m in sys.modules if m.split('.')[0] == 'anyorder_jax'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert len(done.stdout.split()) <= most, done.stdout
