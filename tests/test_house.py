"""The house keeps its shape: imports point down, one file says PartitionSpec, nothing unsafe is loaded."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"files", "command", "paths", "terminal"},  # the standard library alone
    {"recipes"},
    {"types", "config", "keys", "process", "digest", "hardware", "hlo", "rendering", "profiling"},
    {"data", "masking", "environments", "sharding", "metrics", "statistics"},
    {"model", "formats"},
    {"run_directory"},
    {"loss", "optimizer", "flops", "pretrained", "task", "ingestion"},
    {"state"},
    {"step", "decode", "checkpoint", "weights"},
    {"acting", "asking", "health"},
    {"evaluation"},
    {"generate", "ingest", "train", "evaluate", "collect", "ablate", "demo", "fit"},
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


@pytest.mark.parametrize("word", ["trust_remote_code=True", "pickle.load", "torch.load", "config.get("])
def test_nothing_unsafe(word):
    for path in MODULES + sorted((ROOT / "conversion").rglob("*.py")):
        assert word not in path.read_text(encoding="utf-8"), path
