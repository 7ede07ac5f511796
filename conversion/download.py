"""Fetching a checkpoint from the Hugging Face Hub: the files that are needed, resumed, hashes checked."""

from __future__ import annotations

import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from anyorder_jax.pretrained.directory import open_model
from conversion.staging import refuse_full

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model", "*.py", "LICENSE*", "README.md")
"""Weights, config, tokenizer, and the Python files that an exported model carries along (never run here)."""


def _advice(repo_id: str, error: Exception) -> str:
    if isinstance(error, GatedRepoError):
        return (
            f"{repo_id} is gated: accept its licence on {constants.ENDPOINT}/{repo_id}, then log in with "
            "`hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | HFValidationError):
        return (
            f"{constants.ENDPOINT} has no such repository or revision: {repo_id}. Check the spelling "
            "(inclusionAI/LLaDA2.0-mini-preview is one); for a private one, set HF_TOKEN."
        )
    return (
        f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}: {str(error).splitlines()[0][:160]}). Check "
        "the network; behind a firewall, set HF_ENDPOINT to a mirror or HTTPS_PROXY to a proxy, and unset "
        "HF_HUB_OFFLINE. Without any network: download on another machine with the same command, copy the directory "
        "here, and go on with `python -m conversion merge --input_path DIRECTORY`. A broken download resumes when the "
        "command is run again."
    )


def _wanted(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in PATTERNS)


def download(repo_id: str, local_dir: str | Path, *, revision: str | None = None, is_dry_run: bool = False) -> None:
    """Downloads what a LLaDA2.x checkpoint needs into `local_dir`, and opens it to see that it is whole.

    Files that are there already and complete are not fetched again. The token comes from `hf auth login` or
    HF_TOKEN, the server from HF_ENDPOINT.

    Args:
      repo_id: on the hub.
      local_dir: where the files go.
      revision: branch, tag or commit.
      is_dry_run: lists what would be fetched, and stops.

    Raises:
      ConnectionError: when the server cannot be reached, or refuses; the message says what to do.
      ValueError: when the disk is too small, a hash differs, or the result is no LLaDA2.x checkpoint.
    """
    local_dir = Path(local_dir)
    try:
        info = HfApi().model_info(repo_id, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or () if _wanted(file.rfilename)}
        if not any(name.endswith(".safetensors") for name in sizes):
            raise ValueError(f"{repo_id}: has no safetensors file. Pickles are not downloaded: choose another one.")
        present = sum((local_dir / name).stat().st_size for name in sizes if (local_dir / name).is_file())
        total = sum(sizes.values())
        if is_dry_run:
            print(f"would download {repo_id} at {info.sha} to {local_dir}: {len(sizes)} files, {total / 1e9:.3f} GB")
            print(f"({present / 1e9:.3f} GB of that is there already)\n  " + ", ".join(sorted(sizes)))
            return
        refuse_full(local_dir, total - present)
        snapshot_download(repo_id, revision=info.sha, local_dir=local_dir, allow_patterns=list(PATTERNS))
        checked = HfApi().verify_repo_checksums(repo_id, revision=info.sha, local_dir=local_dir)
    except (HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, HFValidationError, OSError) as error:
        raise ConnectionError(f"download: {_advice(repo_id, error)}") from error
    bad = [str(mismatch) for mismatch in checked.mismatches]
    bad += [f"{name} is missing" for name in checked.missing_paths if _wanted(name)]
    if bad:
        raise ValueError(f"{local_dir}: not what {repo_id} holds: {bad[0]}. Delete that file and run this again.")
    model = open_model(local_dir)
    print(f"{local_dir}: {model.layout} layout, {len(model.tensors)} tensors, {model.num_bytes / 1e9:.3f} GB")
