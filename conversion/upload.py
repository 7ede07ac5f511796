"""Putting an exported directory on the Hugging Face Hub, in one commit: it is there whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained.directory import PICKLES, open_model, read_config
from anyorder_jax.pretrained.shards import read_header

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def check(directory: Path) -> list[Path]:
    """The files of a model directory, or of a PEFT adapter, relative. Reads headers and settings, no weights.

    Hidden files and folders (`.git`, `.cache` of a download) are not among them.

    Raises:
      ValueError: for a directory that is neither, is not whole, or asks for what nobody computes.
    """
    if directory.name.endswith(".partial"):
        raise ValueError(f"{directory}: is what a killed conversion left behind. Run that conversion again.")
    if (directory / ADAPTER[0]).is_file():
        _check_adapter(directory)
    else:
        model = open_model(directory)
        ModelConfig.from_hf(dict(model.config))
        _check_code(directory)
    relative = (path.relative_to(directory) for path in sorted(directory.rglob("*")) if path.is_file())
    return [path for path in relative if not any(part.startswith(".") for part in path.parts)]


def _check_adapter(directory: Path) -> None:
    settings, weights = (directory / name for name in ADAPTER)
    try:
        values = json.loads(settings.read_text(encoding="utf-8"))
        rank = values["r"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{settings}: is no PEFT adapter's settings ({error!r}). Export it again.") from None
    if not weights.is_file():
        raise ValueError(f"{directory}: {weights.name} is not there. Export the adapter again.")
    for tensor in read_header(weights)[0]:
        if rank not in tensor.shape:
            raise ValueError(f"{weights}: {tensor.name} has shape {list(tensor.shape)}, and r is {rank}. Export again.")
    for path in directory.rglob("*"):
        if path.suffix.lower() in PICKLES:
            raise ValueError(f"{directory}: refusing the pickle {path.name!r}. Move it away.")
        if not path.resolve().is_relative_to(directory.resolve()):
            raise ValueError(f"{path}: is a link to {path.resolve()}, outside of the directory. Put the file there.")


def _check_code(directory: Path) -> None:
    """What `auto_map` names is there; names in another repository ("org/name--module.Class") are not looked for."""
    named = read_config(directory).get("auto_map") or {}
    for target in named.values():
        module = f"{str(target).split('.')[0]}.py"
        if "--" not in module and not (directory / module).is_file():
            raise ValueError(
                f"{directory}: config.json names {module} (auto_map), which is not there: nobody could load it. Export "
                "with --with_code, or remove auto_map."
            )


def upload(
    directory: str | Path, repo: str, *, is_private: bool = False, revision: str | None = None, is_dry_run: bool = False
) -> None:
    """Makes the repository where there is none, and commits all files of the directory to it.

    The token comes from `hf auth login` or HF_TOKEN, the server from HF_ENDPOINT. What a killed call has sent of large
    files is not sent again by the next one, and nothing is seen of it before the commit. Files that only the repository
    has stay there.

    Args:
      directory: of a model, or of an adapter.
      repo: "name" or "organisation/name".
      is_private: of a repository that is made.
      revision: an existing branch; None: the main one.
      is_dry_run: says what would be sent, and stops.

    Raises:
      ValueError: for a directory that `check` refuses, a bad name, or without a token.
      ConnectionError: when the server cannot be reached, or refuses; the message says what to do.
    """
    directory = Path(directory)
    files = check(directory)
    num_bytes = sum((directory / path).stat().st_size for path in files)
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"--repo: expected NAME or ORGANISATION/NAME, got {repo!r} ({error}).") from None
    if is_dry_run:
        print(f"would upload {len(files)} files, {num_bytes / 1e9:.3f} GB, to {constants.ENDPOINT}/{repo}:")
        print("  " + ", ".join(map(str, files)))
        return
    if get_token() is None:
        raise ValueError(
            "upload: there is no token. Log in with `hf auth login`, or set HF_TOKEN (of one that may write)."
        )
    try:
        address = _commit(HfApi(library_name="anyorder_jax"), directory, files, repo, is_private, revision)
    except (HTTPError, OfflineModeIsEnabled, OSError) as error:
        raise ConnectionError(f"upload: {_advice(repo, error)}") from error
    print(f"{directory}: {len(files)} files, {num_bytes / 1e9:.3f} GB -> {address}")


def _commit(
    api: HfApi, directory: Path, files: Sequence[Path], repo: str, is_private: bool, revision: str | None
) -> str:
    """Returns the address of the repository."""
    created = api.create_repo(repo, private=is_private, exist_ok=True)
    operations = [CommitOperationAdd(path.as_posix(), directory / path) for path in files]
    message = f"{directory.resolve().name}, exported by anyorder_jax"
    api.create_commit(created.repo_id, operations, commit_message=message, revision=revision)
    return str(created)


def _advice(repo: str, error: Exception) -> str:
    """What to do about it."""
    told = " ".join(str(error).split())[:300]
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
    if status in (401, 403):
        return (
            f"{constants.ENDPOINT} refuses to write {repo} ({told}). Use a token of a user who may (`hf auth login`, "
            "HF_TOKEN), with the right to write, or another --repo."
        )
    if status == 404:
        return f"{constants.ENDPOINT} has no such repository or branch: {repo} ({told}). Make the branch first."
    if status:
        return f"{constants.ENDPOINT} refuses ({told}). Nothing was committed; run it again, or change what it names."
    return (
        f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {told}). Nothing was committed. Check the "
        "network (HF_ENDPOINT, HTTPS_PROXY, HF_HUB_OFFLINE), and run the same command again: large files that arrived "
        "are not sent twice."
    )
