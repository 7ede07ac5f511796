"""Files: logs on disk, cut into pieces of about 8 MB that workers read on their own.

    logs.jsonl    {...}\\n{...}\\n | {...}\\n ... |          a piece begins with a line
    logs.json     [{...}, {...}, | {...}, ...  ]           a piece begins between two records
    logs.parquet  row groups      | row groups             a piece is whole row groups
    logs.jsonl.gz, .zst                                    one piece: it cannot be entered in the middle

What a file holds is told from its bytes; its name only says that it is one of ours.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import zstandard

from anyorder_jax.ingestion.stream import BrokenError, broken_text, elements, text_reader

PIECE_BYTES = 8 * 2**20
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".traj", ".parquet")
_COMPRESSED = ("", ".gz", ".zst")
_WRAPPERS = ("data", "episodes", "trajectories", "records", "examples", "samples")
_RECORD_KEYS = frozenset(("messages", "conversations", "steps", "content", "answer_generation"))
_PEEK_BYTES = 64 * 2**20
_BLOCK = 2**20
_BOM = b"\xef\xbb\xbf"


class Piece(NamedTuple):
    """A part of a file. kind: "lines", "records" (of a JSON document), "whole" (the document is one record) or "table".
    start, end: bytes, of a table row groups. first: number of its first line, record or row, from 1. broken: what is
    wrong with a document behind the piece's last record, or ""."""

    file: str
    kind: str
    start: int
    end: int
    first: int
    broken: str = ""


class Scanned(NamedTuple):
    """What a scan of a file gave."""

    file: str
    num_bytes: int
    sha256: str
    pieces: tuple[Piece, ...]


def find(inputs: Sequence[str]) -> list[Path]:
    """The files that files, folders (and what lies below them) and patterns name, each once, in order.

    Raises:
      FileNotFoundError: one of them names nothing.
    """
    endings = tuple(suffix + compressed for suffix in _SUFFIXES for compressed in _COMPRESSED)
    found: dict[Path, Path] = {}
    for name in inputs:
        path = Path(name).expanduser()
        if path.is_dir():
            paths = sorted(p for p in path.rglob("*") if p.name.endswith(endings) and p.is_file())
            expected = f"no file there ends in {', '.join(_SUFFIXES)} (or these with .gz, .zst)"
        elif path.is_file():
            paths = [path]
        else:
            paths = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if Path(p).is_file()]
            expected = "no such file or folder, and as a pattern it matches none"
        if not paths:
            raise FileNotFoundError(f"ingest: {name}: {expected}. Name logs that are there.")
        for path in paths:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _compression(path: Path) -> str:
    with open(path, "rb") as file:
        magic = file.read(4)
    return "gz" if magic[:2] == b"\x1f\x8b" else "zst" if magic == b"\x28\xb5\x2f\xfd" else ""


def _open(path: Path) -> BinaryIO:
    """The bytes of a file, decompressed."""
    compression = _compression(path)
    if compression == "gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if compression == "zst":
        return io.BufferedReader(zstandard.open(path, "rb"))  # type: ignore[arg-type]
    return open(path, "rb")


def _is_lines(path: Path, file: BinaryIO) -> bool:
    """Whether every line is a record; else the file is a JSON document over lines."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith((".jsonl", ".ndjson")):
        return True
    first = b""
    while not first.strip():
        first = file.readline(_PEEK_BYTES)
        if not first or (len(first) == _PEEK_BYTES and not first.endswith(b"\n")):
            return False
    following = b""
    while not following and (block := file.read(_BLOCK)):
        following = block.lstrip()[:1]
    if not following:
        return False  # one line is a document, too
    line = first.removeprefix(_BOM).strip()
    if line[:1] == b"{" and line[-1:] == b"}" and following == b"{":
        return True  # also when the first record is broken
    try:
        return isinstance(json.loads(line), (dict, list))
    except (ValueError, RecursionError):
        return False


def _is_one_record(first: Any) -> bool:
    """Whether a list that begins so is one record: its turns, not records."""
    return isinstance(first, dict) and "role" in first and "messages" not in first


def _document_pieces(path: Path) -> Iterator[Piece]:
    start = offset = 0
    first = number = 1
    broken = ""
    with open(path, "rb") as file:
        size = path.stat().st_size
        try:
            for value, num_bytes, is_array in elements(text_reader(file, size), is_start=True, has_end=True):
                if number == 1 and is_array and _is_one_record(value):
                    yield Piece(str(path), "whole", 0, size, 1)
                    return
                if offset - start >= PIECE_BYTES:
                    yield Piece(str(path), "records", start, offset, first)
                    start, first = offset, number
                offset += num_bytes
                number += 1
        except BrokenError as error:
            broken = str(error)
    yield Piece(str(path), "records", start, size, first, broken)


def _line_pieces(path: Path, blocks: Iterator[bytes]) -> Iterator[Piece]:
    start = offset = 0
    first = number = 1  # of the line that begins at `offset`, or that `offset` is in
    for block in blocks:
        if offset + len(block) - start >= PIECE_BYTES and (cut := block.rfind(b"\n") + 1):
            number += block.count(b"\n")
            yield Piece(str(path), "lines", start, offset + cut, first)
            start, first = offset + cut, number
        else:
            number += block.count(b"\n")
        offset += len(block)
    if offset > start or offset == 0:
        yield Piece(str(path), "lines", start, offset, first)


def _table_pieces(path: Path) -> Iterator[Piece]:
    metadata = _parquet(path).metadata
    start = num_bytes = 0
    first = number = 1
    for group in range(metadata.num_row_groups):
        if num_bytes >= PIECE_BYTES:
            yield Piece(str(path), "table", start, group, first)
            start, first, num_bytes = group, number, 0
        num_bytes += metadata.row_group(group).total_byte_size
        number += metadata.row_group(group).num_rows
    if metadata.num_row_groups > start:
        yield Piece(str(path), "table", start, metadata.num_row_groups, first)


def _parquet(path: Path) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"ingest: {path} is a parquet file, which needs pyarrow. Run `pip install 'anyorder-jax[parquet]'`."
        ) from error
    try:
        return parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"ingest: {path}: broken parquet ({error}). Write it again, or leave it out.") from error


def _is_table(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def scan(path: Path, advance: Callable[[int], None]) -> Scanned:
    """Reads a file once: its SHA-256 and its pieces.

    Args:
      path: of the file.
      advance: is told how many bytes were read.
    """
    digest = hashlib.sha256()
    is_lines = False
    is_compressed, is_table = bool(_compression(path)), _is_table(path)
    if not is_table and not is_compressed:
        with open(path, "rb") as file:
            is_lines = _is_lines(path, file)

    def blocks(file: BinaryIO) -> Iterator[bytes]:
        while block := file.read(min(_BLOCK, PIECE_BYTES)):
            digest.update(block)
            advance(len(block))
            yield block

    with open(path, "rb") as file:
        if is_lines:
            pieces = tuple(_line_pieces(path, blocks(file)))
        else:
            for _ in blocks(file):
                pass
            if is_table:
                pieces = tuple(_table_pieces(path))
            elif is_compressed:
                pieces = (Piece(str(path), "compressed", 0, path.stat().st_size, 1),)
            else:
                pieces = tuple(_document_pieces(path))
    return Scanned(str(path), path.stat().st_size, digest.hexdigest(), pieces)


def _without_nulls(value: Any) -> Any:
    """A table's row without nulls: a column that a row does not have comes back as null."""
    if isinstance(value, dict):
        return {key: _without_nulls(v) for key, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def _lines(file: BinaryIO, end: int, first: int) -> Iterator[tuple[int, Any, str]]:
    number, offset = first, file.tell() if end >= 0 else 0
    for line in file:
        offset += len(line)
        if number == 1:
            line = line.removeprefix(_BOM)
        if not line.isspace():
            try:
                yield number, json.loads(line), ""
            except UnicodeDecodeError as error:
                yield number, None, broken_text(error)
            except (ValueError, RecursionError) as error:
                yield number, None, f"broken JSON ({error})"
        number += 1
        if 0 <= end <= offset:
            return


def _unwrapped(value: Any) -> list[Any]:
    """The records in a document that is {"data": [...]} or alike; else the value itself."""
    inside = [value[key] for key in _WRAPPERS if key in value] if isinstance(value, dict) else []
    is_record = isinstance(value, dict) and not _RECORD_KEYS.isdisjoint(value)
    if is_record or len(inside) != 1 or not isinstance(inside[0], list):
        return [value]
    return inside[0] if all(isinstance(record, (dict, list)) for record in inside[0]) else [value]


def _document(file: BinaryIO, piece: Piece, num_bytes: int) -> Iterator[tuple[int, Any, str]]:
    number = piece.first
    turns: list[Any] = []  # of a document that is one record
    try:
        whole = piece.kind in ("whole", "compressed")
        for value, _, is_array in elements(text_reader(file, num_bytes), is_start=piece.start == 0, has_end=whole):
            if turns or (number == 1 and is_array and _is_one_record(value)):
                turns.append(value)
                number += 1
                continue
            for record in _unwrapped(value) if number == 1 and not is_array else (value,):
                yield number, record, ""
                number += 1
    except BrokenError as error:
        yield number, None, f"{error}; the rest of the file is not read"
        return
    if turns:
        yield 1, turns, ""
    if piece.broken:
        yield number, None, f"{piece.broken}; the rest of the file is not read"


def records(piece: Piece) -> Iterator[tuple[int, Any, str]]:
    """(number of the line, record or row; record; "" or what is broken) of a piece, in order."""
    path = Path(piece.file)
    if piece.kind == "table":
        number = piece.first
        for batch in _parquet(path).iter_batches(64, row_groups=list(range(piece.start, piece.end))):
            for row in batch.to_pylist():
                yield number, _without_nulls(row), ""
                number += 1
    elif piece.kind == "compressed":
        try:
            with _open(path) as file:
                is_lines = _is_lines(path, file)
            with _open(path) as file:
                yield from _lines(file, -1, 1) if is_lines else _document(file, piece, -1)
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            yield 0, None, f"broken compression ({error}); the rest of the file is not read"
    else:
        with open(path, "rb") as file:
            file.seek(piece.start)
            if piece.kind == "lines":
                yield from _lines(file, piece.end, piece.first)
            else:
                yield from _document(file, piece, piece.end - piece.start)
