"""Weights on Hugging Face's hub, or in a folder as it lays them out; nothing but the tensors' file is ever fetched."""

from __future__ import annotations

import re
from pathlib import Path

from fastuda.errors import FastudaError
from fastuda.files.paths import is_file
from fastuda.model.library import library
from fastuda.printable import on_one_line

HUB = "hub:"
"""What `model.weights` begins with to name a repository."""
_FILES = ("model.safetensors", "pytorch_model.bin")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def fetch_from_hub(repository: str) -> Path:
    """The weights file of ORG/NAME, downloaded once into the hub's own cache (`HF_HOME`).

    Raises FastudaError when the name is none, the repository has no such file, asks for consent that was not given, or
    cannot be reached; the message says how to bring the file here.
    """
    name = on_one_line(repository, 200)
    if not _REPOSITORY.fullmatch(repository):
        raise FastudaError(f'model.weights: "{name}" names no repository of the hub; write {HUB}ORG/NAME')
    hub, errors = library("huggingface_hub"), library("huggingface_hub.errors")
    failure: Exception | None = None
    for file in _FILES:
        # Who waited for the network in vain need not wait again to learn whether the other file is in the cache.
        unreachable = isinstance(failure, errors.LocalEntryNotFoundError)
        try:
            return Path(hub.hf_hub_download(repository, file, local_files_only=unreachable))
        except errors.EntryNotFoundError as error:
            failure = failure or error
        except Exception as error:  # whatever the client, its transport and the system raise
            failure = error
            break
    gated = isinstance(failure, errors.GatedRepoError)
    if isinstance(failure, errors.LocalEntryNotFoundError):
        failure = failure.__cause__ if isinstance(failure.__cause__, Exception) else failure
    why = "it is open to those alone who accepted its licence on its page" if gated else _first_line(failure)
    raise FastudaError(
        f"{name}: its weights cannot be had from the hub ({why}).\n"
        f"  Fetch them{' with an account that may' if gated else ' where there is a network'}: "
        f"hf download {name} --local-dir FOLDER\n"
        f"  and name that folder, which holds {' or '.join(_FILES)}: --set model.weights=FOLDER\n"
        "  A random start has to be asked for: --set model.weights=random"
    ) from failure


def in_folder(folder: Path) -> Path:
    """The weights file of such a folder. Raises FastudaError where there is none."""
    found = next((path for file in _FILES if is_file(path := folder / file)), None)
    if found is None:
        raise FastudaError(
            f"{on_one_line(folder)}: a folder without {' or '.join(_FILES)}; name the weights file itself"
        )
    return found


def _first_line(error: Exception | None) -> str:
    text = str(error).strip() or type(error).__name__
    return on_one_line(text.splitlines()[0], 200)
