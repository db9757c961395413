"""The cache folder: where packed copies, drawn data, downloads and skip lists go."""

from __future__ import annotations

import os
from pathlib import Path

from fastuda.files.paths import user_path
from fastuda.recipe import Data


def cache_folder(data: Data) -> Path:
    """The recipe's `data.cache`, else `$FASTUDA_CACHE`, else `~/.cache/fastuda`: an absolute path; not created here."""
    chosen = data.cache or os.environ.get("FASTUDA_CACHE") or Path("~/.cache/fastuda")
    return user_path(chosen).absolute()
