"""The libraries that networks of others come from, imported when one is built and not before."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fastuda.errors import FastudaError


def library(module: str) -> Any:
    """The module of that name, of transformers, peft or huggingface_hub.

    Raises FastudaError, with the extra that has it, where the library is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise FastudaError(
            f"this network is built with the library {name}, which cannot be imported ({error}): "
            "pip install 'fastuda[transformers]'"
        ) from error
