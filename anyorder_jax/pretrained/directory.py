"""A model directory in Hugging Face style, opened and checked: config, shards, index, other files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.shards import Stored, read_header, read_json

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
WEIGHT_DTYPES = ("F32", "BF16", "F16")


@dataclass(frozen=True)
class ModelDirectory:
    """What a directory holds.

    tensors: in the order of files and bytes. carried: all other files, relative path -> path.
    """

    path: Path
    config: Mapping[str, Any]
    dims: names.Dims
    layout: str
    tensors: Mapping[str, Stored]
    places: Mapping[str, names.Place]
    carried: Mapping[Path, Path]

    def differences(self) -> names.Differences:
        """Names and shapes that are not as `config.json` says."""
        return names.differences({name: t.shape for name, t in self.tensors.items()}, self.places)

    @property
    def num_bytes(self) -> int:
        return sum(tensor.num_bytes for tensor in self.tensors.values())


def _inside(directory: Path, path: Path) -> bool:
    """Whether a file really lies in the directory (or in the blobs of the same Hugging Face cache entry)."""
    root = directory.resolve()
    allowed = [root]
    if root.parent.name == "snapshots":  # .../models--org--name/{snapshots/<revision>, blobs}
        allowed.append(root.parent.parent / "blobs")
    return any(path.resolve().is_relative_to(folder) for folder in allowed)


def _files(directory: Path) -> list[Path]:
    """Regular files of a directory, relative, without hidden folders (.git, .cache of a download)."""
    found = []
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if any(part.startswith(".") for part in relative.parts[:-1]) or path.is_dir():
            continue
        if not _inside(directory, path):
            raise ValueError(f"{path}: is a link to {path.resolve()}, outside of the directory. Put the file there.")
        found.append(relative)
    return found


def _refuse_pickles(directory: Path, files: list[Path]) -> None:
    pickles = [str(path) for path in files if path.suffix.lower() in PICKLES]
    if pickles:
        raise ValueError(
            f"{directory}: refusing the pickle {pickles[0]!r}: reading it would run code. Only safetensors are "
            "converted; move it away, or save the model with safe_serialization=True."
        )


def _read_index(directory: Path) -> dict[str, str]:
    """The weight map of the index: tensor name -> file name, each a plain name inside the directory."""
    path = directory / INDEX_NAME
    index = read_json(path, path.read_bytes(), "the index")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{path}: expected a 'weight_map' of tensor names to files, got {str(weight_map)[:80]}.")
    for name, file_name in weight_map.items():
        if not isinstance(file_name, str) or Path(file_name).name != file_name or file_name in ("", ".", ".."):
            raise ValueError(f"{path}: {name} points to {file_name!r}, outside of the directory. Refused.")
        if Path(file_name).suffix != ".safetensors":
            raise ValueError(f"{path}: {name} points to {file_name!r}, which is no safetensors file. Refused.")
        if not (directory / file_name).is_file():
            raise ValueError(f"{path}: {name} is said to be in {file_name}, which is not there. Download it again.")
    return weight_map


def _shard_files(directory: Path, files: list[Path]) -> tuple[list[str], dict[str, str] | None]:
    present = [str(path) for path in files if path.suffix == ".safetensors"]
    if Path(INDEX_NAME) in files:
        weight_map = _read_index(directory)
        wanted = sorted(set(weight_map.values()))
        extra = [name for name in present if name not in wanted]
        if extra:
            raise ValueError(
                f"{directory}: {extra[0]} is not in {INDEX_NAME}. Two checkpoints seem to lie here: move one away."
            )
        return wanted, weight_map
    if present != [SINGLE_NAME]:
        raise ValueError(
            f"{directory}: expected {INDEX_NAME} or a single {SINGLE_NAME}, found "
            f"{', '.join(present[:5]) or 'no safetensors file'}. Name a directory with a LLaDA2.x checkpoint."
        )
    return present, None


def _read_tensors(directory: Path, files: list[str], weight_map: dict[str, str] | None) -> dict[str, Stored]:
    tensors: dict[str, Stored] = {}
    for file_name in files:
        for tensor in read_header(directory / file_name)[0]:
            if tensor.name in tensors:
                first = tensors[tensor.name].path.name
                raise ValueError(f"{directory}: {tensor.name} is doubled: it is in {first} and in {file_name}.")
            tensors[tensor.name] = tensor
    if weight_map is not None:
        for name, file_name in weight_map.items():
            if name not in tensors or tensors[name].path.name != file_name:
                where = f"it is in {tensors[name].path.name}" if name in tensors else "no shard has it"
                raise ValueError(f"{directory / INDEX_NAME}: says that {name} is in {file_name}, but {where}.")
        unlisted = [name for name in tensors if name not in weight_map]
        if unlisted:
            raise ValueError(
                f"{directory / INDEX_NAME}: does not list {unlisted[0]}, which is in {tensors[unlisted[0]].path.name}."
            )
    return tensors


def _check_dtypes(directory: Path, tensors: Mapping[str, Stored]) -> None:
    for tensor in tensors.values():
        if tensor.dtype not in WEIGHT_DTYPES:
            raise ValueError(
                f"{tensor.path}: {tensor.name} has dtype {tensor.dtype}, expected one of {', '.join(WEIGHT_DTYPES)}. "
                "Quantised checkpoints are not converted: take the original."
            )


def read_config(directory: Path) -> dict[str, Any]:
    """The values of `config.json`; the checkpoint's own Python files are never run."""
    path = directory / "config.json"
    if not path.is_file():
        raise ValueError(f"{directory}: there is no config.json. Name a directory with a LLaDA2.x checkpoint.")
    return read_json(path, path.read_bytes(), "the config")


def scan(path: str | Path) -> ModelDirectory:
    """Reads config, index and headers, and refuses what cannot be trusted; names and shapes are left to `open_model`.

    Raises:
      ValueError: for a missing or foreign config, a pickle, a bad index or header, a doubled name, a wrong
        dtype, a file that lies outside, or a directory without weights.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise ValueError(f"{directory}: expected a directory with a LLaDA2.x checkpoint; there is none.")
    files = _files(directory)
    _refuse_pickles(directory, files)
    config = read_config(directory)
    dims = names.Dims.from_config(config, str(directory / "config.json"))
    shard_names, weight_map = _shard_files(directory, files)
    tensors = _read_tensors(directory, shard_names, weight_map)
    _check_dtypes(directory, tensors)
    layout = names.recognise(list(tensors), str(directory))
    own = {Path("config.json"), Path(INDEX_NAME), *map(Path, shard_names)}
    carried = {file: directory / file for file in files if file not in own}
    return ModelDirectory(directory, config, dims, layout, tensors, names.expected(dims, layout), carried)


def open_model(path: str | Path) -> ModelDirectory:
    """`scan`, and every tensor is there, known, and of the shape that `config.json` asks for.

    Raises:
      ValueError: as `scan`, and for missing and unknown tensors and wrong shapes.
    """
    model = scan(path)
    found = model.differences()
    if found:
        raise ValueError(
            f"{model.path}: the tensors are not those that config.json asks for ({model.layout} layout). "
            + names.describe(found, model.places)
        )
    return model
