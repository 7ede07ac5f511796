"""What an exported model takes along, from where the weights came: the run, the runs before it, the model at the end.

run ──model.path──► run ──model.path──► model directory        (or `source/` of a run that `to_orbax` made)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from anyorder_jax import run_directory
from anyorder_jax.config import Config, freeze
from anyorder_jax.data import tokenizer_files
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained.directory import ModelDirectory, open_model, read_config
from conversion.writing import Carried

DTYPES_NAME = "tensor_dtypes.json"


class Companions(NamedTuple):
    """What an exported model takes along: config values (None: made from the model), dtypes by table row, files."""

    config: Mapping[str, Any] | None
    dtypes: Mapping[str, str]
    carried: Carried


def say(line: str) -> None:
    """A line for the user beside the result."""
    print(f"note: {line}", file=sys.stderr)


def stored_dtypes(model: ModelDirectory) -> dict[str, str]:
    """Name of a table row -> the dtype of its tensors (the widest, should they differ)."""
    found: dict[str, str] = {}
    for name, tensor in model.tensors.items():
        row = model.places[name].row.hf
        found[row] = "F32" if row in found and found[row] != tensor.dtype else tensor.dtype
    return found


def companions_of(run: Path, config: Config, model_config: ModelConfig) -> Companions:
    """Config, dtypes and files of the model that the first run of the chain started from; the tokenizer is the run's.

    What is missing is said in a line on stderr: the weights alone are still worth exporting.

    Args:
      run, config: the run directory, and its configuration.
      model_config: of the weights; a config.json that describes another model is not taken along.
    """
    found = Companions(None, {}, {})
    try:
        folder = _origin(run, config)
        if folder is not None:
            found = _of_folder(folder, model_config)
    except (ValueError, OSError) as error:
        say(
            f"{run}: what it started from cannot be read: {error} So its Python files, generation_config.json, its own "
            f"config.json and dtypes do not come along; tensors are written as the run holds them "
            f"({config.model.param_dtype}). To have them, put it back (or a link to it), and export again."
        )
    return found._replace(carried=_with_tokenizer(run, found.carried))


def _origin(run: Path, config: Config) -> Path | None:
    """The folder that holds what the model came with; None where all runs of the chain started from a preset.

    Raises:
      FileNotFoundError, ValueError: when the next of the chain is not there, or cannot be read.
    """
    seen: set[Path] = set()
    while run.resolve() not in seen:
        seen.add(run.resolve())
        if (run / "source" / "config.json").is_file():
            return run / "source"
        if not config.model.path:
            return None
        place = Path(config.model.path)
        if not place.exists():
            raise FileNotFoundError(f"{_told(run, place)} is not there.")
        if not run_directory.is_run(place):
            return place
        config = freeze(run_directory.read_meta(place)["config"])
        run = run_directory.find(place)[0]
    raise ValueError(f"{run} started from itself.")


def _told(run: Path, place: Path) -> str:
    if place.is_absolute():
        return f"{place} (config.model.path of {run})"
    return f"{place} (config.model.path of {run}, relative: found only from the folder where the run was started)"


def _of_folder(folder: Path, model_config: ModelConfig) -> Companions:
    config: dict[str, Any] | None = read_config(folder)
    assert config is not None
    if ModelConfig.from_hf(config) != model_config:
        say(f"{folder}/config.json describes another model than the run: a new one is written, without its other keys.")
        config = None
    if not (folder / DTYPES_NAME).is_file():
        model = open_model(folder)
        return Companions(config, stored_dtypes(model), dict(model.carried))
    dtypes = json.loads((folder / DTYPES_NAME).read_text(encoding="utf-8"))
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return Companions(config, dtypes, {p: f for p, f in files.items() if p.name not in ("config.json", DTYPES_NAME)})


def _with_tokenizer(run: Path, carried: Carried) -> Carried:
    """The files of the model, with those of the run's tokenizer in place of its own: byte for byte where they are the
    model's or open with transformers 4 and 5."""
    own: dict[Path, Path | str] = dict(tokenizer_files.list_files(run / "tokenizer"))
    before = {path: file for path, file in carried.items() if tokenizer_files.is_tokenizer_file(path)}
    config = Path(tokenizer_files.CONFIG_NAME)
    if config not in own:
        if not before:
            say(f"{run}: has no tokenizer/, so the exported directory has none either.")
        return carried
    text = (run / "tokenizer" / config).read_text(encoding="utf-8")
    values = json.loads(text)
    if not tokenizer_files.is_portable(values) and text != _text(before.get(config)):
        if _has_same_words(own, before):  # an earlier version of this program rewrote the model's files
            return carried
        own[config] = tokenizer_files.portable_text(values)
    return {**{path: file for path, file in carried.items() if path not in before}, **own}


def _text(file: Path | str | None) -> str | None:
    return file.read_text(encoding="utf-8") if isinstance(file, Path) else file


def _has_same_words(first: Carried, second: Carried) -> bool:
    """Whether two tokenizers have the same tokens under the same ids."""
    from tokenizers import Tokenizer

    name = Path(tokenizer_files.BACKEND_NAME)
    if name not in first or name not in second:
        return False
    words = [Tokenizer.from_str(_text(files[name]) or "").get_vocab() for files in (first, second)]
    return words[0] == words[1]
