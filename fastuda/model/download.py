"""Download of pretrained backbones: once, checked by hash, never half a file."""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.parse
import urllib.request
from pathlib import Path

from fastuda.errors import FastudaError
from fastuda.files.disk import sweep, whole_file
from fastuda.files.lock import Look, held
from fastuda.model.archive import MOST_BYTES, opened
from fastuda.printable import is_plain

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30


def fetch(url: str, cache: Path, sha256: str | None = None, look: Look | None = None) -> Path:
    """The file of an http, https or file URL, in the folder `cache`.

    It is downloaded unless it lies there already; of two processes that want it one downloads, and
    the other waits. `look` is called while it waits and while a file arrives. Its SHA-256, as hex
    digits, must be `sha256`; without one it must begin as the file name says (`resnet50-0676ba61.pth`),
    and a name that says nothing is not checked. Raises FastudaError when the URL is none, the hash
    differs (nothing is left behind) or the download fails; the message says where to put the file.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        file_name = Path(urllib.parse.unquote(parts.path)).name
    except ValueError as error:
        raise FastudaError(f"weights {url}: not a URL: {error}") from error
    if parts.scheme not in ("http", "https", "file") or not is_plain(file_name) or file_name in ("", ".."):
        raise FastudaError(f"weights {url}: not an http, https or file URL that ends with a file's name")
    digits = sha256 or _digits_in(file_name)

    target = cache / file_name
    try:
        if not target.is_file():
            cache.mkdir(parents=True, exist_ok=True)
            with held(cache, "downloading", wait=True, look=look):
                if not target.is_file():
                    sweep(cache)
                    _download(url, target, digits, look)
                    return target
        with target.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        _require(found, digits, file_name, f"delete {target} to download it again from {url}")
    except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: a port or length that is no number
        raise FastudaError(
            f"cannot download {url}: {error}\n"
            f"  Without a network, put the file {file_name} into {cache.absolute()} and run again.\n"
            f"  A random start has to be asked for: --set model.weights=random"
        ) from error
    return target


def _digits_in(file_name: str) -> str:
    match = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", file_name)
    return match.group(1) if match else ""


def _download(url: str, target: Path, digits: str, look: Look | None) -> None:
    """Download to `target`; nothing is left of what fails.

    By hand, since `torch.hub.download_url_to_file` has no timeout, hears no stop, takes files without end, and takes
    one that broke off for whole where no hash is known.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        with opened(Path(urllib.request.url2pathname(parts.path))):
            pass  # a pipe or a device would never end
    digest, arrived = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response, whole_file(target, durable=True) as write:
        while chunk := response.read1(_CHUNK_BYTES):  # what has arrived, without waiting for as much
            if look is not None:
                look()
            arrived += len(chunk)
            if arrived > MOST_BYTES:
                raise OSError(f"it has more than {MOST_BYTES / 1e9:.0f} GB, as no weights have")
            digest.update(chunk)
            write(chunk)
        # A chunked read ends quietly when the connection drops, and not every file name holds a hash.
        announced = response.headers.get("Content-Length")
        if announced is not None and arrived != int(announced):
            raise OSError(f"{arrived} of {announced} bytes arrived")
        advice = f"{url} does not hold the expected file; nothing was kept"
        _require(digest.hexdigest(), digits, target.name, advice)


def _require(found: str, digits: str, file_name: str, advice: str) -> None:
    if not found.startswith(digits.lower()):
        raise FastudaError(f"{file_name}: its SHA-256 is {found}, not {digits}…; {advice}")
