"""Split experts <-> merged experts: byte ranges are moved, nothing is computed.

    split   experts.0.up_proj.weight [F, D], experts.1.up_proj.weight [F, D], ...   E tensors
    merged  experts.up_proj [E, F, D]                                               their bytes, end to end

The order of tensors over shards is that of dFactory's `moe_convertor.py`: the experts of all layers first,
then the rest as it stood in the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from anyorder_jax.pretrained.directory import ModelDirectory, open_model
from anyorder_jax.pretrained.names import TABLE
from anyorder_jax.pretrained.shards import DTYPE_BYTES, STORED_NAMES, Spec, Stored
from anyorder_jax.progress import Progress
from conversion.copying import Files, copy_range
from conversion.threads import in_threads
from conversion.writing import MAX_SHARD_BYTES, Target, config_text, make_plan, written

JOB_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Piece:
    """Bytes of the input that stand together in the output."""

    path: Path
    start: int
    num_bytes: int


@dataclass(frozen=True)
class Move:
    """A tensor of the output and the pieces of the input that it is made of, in order."""

    spec: Spec
    pieces: Sequence[Piece]
    dtype: str  # of the pieces


def _whole(tensor: Stored) -> Move:
    spec = Spec(tensor.name, tensor.dtype, tensor.shape, tensor.start)
    return Move(spec, (Piece(tensor.path, tensor.start, tensor.num_bytes),), tensor.dtype)


def _merge_experts(name: str, experts: Sequence[Stored]) -> Move:
    dtypes = {tensor.dtype: tensor.name for tensor in experts}
    if len(dtypes) > 1:
        raise ValueError(
            f"{name}: the experts have different dtypes ({', '.join(f'{d}: {n}' for d, n in dtypes.items())}); they "
            "cannot share one tensor."
        )
    spec = Spec(name, experts[0].dtype, (len(experts), *experts[0].shape), experts[0].start)
    return Move(spec, tuple(Piece(t.path, t.start, t.num_bytes) for t in experts), experts[0].dtype)


def _split_expert(name: str, merged: Stored, expert: int) -> Move:
    num_bytes = merged.num_bytes // merged.shape[0]
    start = merged.start + expert * num_bytes
    return Move(
        Spec(name, merged.dtype, merged.shape[1:], start),
        (Piece(merged.path, start, num_bytes),),
        merged.dtype,
    )


def moves(model: ModelDirectory, layout: str) -> list[Move]:
    """The tensors of `model` in the other layout, in the order in which they fill shards.

    Raises:
      ValueError: when the model has that layout already, or experts of one tensor differ in dtype.
    """
    if model.layout == layout:
        raise ValueError(
            f"{model.path}: the experts are {layout} already, as the tensor names show (model_type is "
            f"{model.config['model_type']!r}). There is nothing to do."
        )
    rows = [row for row in TABLE if row.merged_hf]
    found = []
    for layer in range(model.dims.num_dense, model.dims.num_layers):
        if layout == "merged":
            for row in rows:
                experts = [model.tensors[row.hf.format(i=layer, e=e)] for e in range(model.dims.num_experts)]
                found.append(_merge_experts(row.merged_hf.format(i=layer), experts))
        else:
            for e in range(model.dims.num_experts):
                for row in rows:
                    merged = model.tensors[row.merged_hf.format(i=layer)]
                    found.append(_split_expert(row.hf.format(i=layer, e=e), merged, e))
    rest = (name for name in model.tensors if not model.places[name].row.merged_hf)
    return found + [_whole(model.tensors[name]) for name in rest]


def convert(
    input_path: str | Path,
    output_path: str | Path,
    layout: str,
    *,
    dtype: str = "",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    checks_nan: bool = False,
    is_dry_run: bool = False,
    show_progress: bool = True,
) -> None:
    """Writes the model at `input_path` to `output_path` with its experts in `layout`.

    Args:
      input_path: a directory with the model in the other layout.
      output_path: a new directory, or an empty one.
      show_progress: whether a line on the terminal tells how far it is.
      layout: "merged" or "split".
      dtype: "" keeps every tensor's own; "bfloat16" or "float32" rounds all of them (the reference:
        bfloat16).
      max_shard_bytes: shards hold at most so many bytes of tensors.
      checks_nan: first reads every value and warns of NaN with the tensor's name (bytes are moved unseen otherwise;
        with `dtype`, which reads them, NaN is always named).
      is_dry_run: checks everything, prints the plan, writes nothing.

    Raises:
      ValueError: for input that is not a whole LLaDA2.x checkpoint in the other layout, an occupied output, a
        full disk.
      OSError: when the disk fails on the way; nothing is left behind.
    """
    model = open_model(input_path)
    all_moves = moves(model, layout)
    if dtype:
        stored = STORED_NAMES[dtype]
        all_moves = [Move(Spec(m.spec.name, stored, m.spec.shape), m.pieces, m.dtype) for m in all_moves]
    plan = make_plan(
        output_path,
        [move.spec for move in all_moves],
        config_text(model.config, layout, dtype),
        carried=model.carried,
        max_shard_bytes=max_shard_bytes,
    )
    if is_dry_run:
        print(f"{model.path}: {model.layout} layout, {len(model.tensors)} tensors, {model.num_bytes / 1e9:.3f} GB")
        print(plan.describe())
        return
    if checks_nan:
        from conversion.inspection import warn_of_nan  # NumPy, which moving bytes does not need

        warn_of_nan(model)
    bar = Progress(plan.num_bytes, "merge" if layout == "merged" else "split", is_shown=show_progress)
    with bar, Files() as files, written(plan) as target:
        in_file_order = sorted(all_moves, key=lambda move: target.place(move.spec.name))
        for num_bytes in in_threads(lambda job: _copy(files, job), _jobs(in_file_order, target)):
            bar.update(num_bytes)


class Part(NamedTuple):
    """A piece of a tensor, or a part of one: the descriptor to write it to, and where."""

    move: Move
    piece: Piece
    descriptor: int
    offset: int


def _parts(moves: Iterable[Move], target: Target) -> Iterator[Part]:
    for move in moves:
        descriptor, offset = target.place(move.spec.name)
        for piece in move.pieces:
            for start in range(0, piece.num_bytes, JOB_BYTES):
                part = Piece(piece.path, piece.start + start, min(JOB_BYTES, piece.num_bytes - start))
                yield Part(move, part, descriptor, offset)
                offset += _num_bytes_written(move, part)


def _jobs(moves: Iterable[Move], target: Target) -> Iterator[list[Part]]:
    """Parts of about `JOB_BYTES` together (an expert's matrix alone is too little for a thread to be asked), which any
    thread may copy in any order."""
    job: list[Part] = []
    num_bytes = 0
    for part in _parts(moves, target):
        if job and num_bytes + part.piece.num_bytes > JOB_BYTES:
            yield job
            job, num_bytes = [], 0
        job.append(part)
        num_bytes += part.piece.num_bytes
    yield job


def _num_bytes_written(move: Move, piece: Piece) -> int:
    return piece.num_bytes // DTYPE_BYTES[move.dtype] * DTYPE_BYTES[move.spec.dtype]


def _copy(files: Files, job: Sequence[Part]) -> int:
    """Writes the parts; returns how many bytes that were."""
    total = 0
    for move, piece, descriptor, offset in job:
        num_bytes = _num_bytes_written(move, piece)
        if move.dtype == move.spec.dtype:
            copy_range(files.mapped(piece.path), piece.start, descriptor, offset, num_bytes)
        else:
            from conversion.dtypes import convert_range  # NumPy, which moving bytes does not need

            num_items = piece.num_bytes // DTYPE_BYTES[move.dtype]
            name = move.spec.name
            source = files.reader(piece.path)
            convert_range(source, piece.start, move.dtype, descriptor, offset, move.spec.dtype, num_items, name)
        total += num_bytes
    return total
