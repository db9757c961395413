"""What a recipe names and a file of that name holds: terms and masks, each a module of its package.

The one look from a recipe into the rooms above it: by name, at run time. A file is all that makes a term or a mask
known.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any

from fastuda.errors import nearest


def names_in(package: str) -> list[str]:
    """The modules of a package."""
    return [module.name for module in pkgutil.iter_modules(import_module(package).__path__)]


def named(package: str, name: object, attribute: str) -> Any:
    """`attribute` of the package's module `name`; ValueError, with the nearest name, where there is none."""
    known = names_in(package)
    if isinstance(name, str) and name in known:
        found = getattr(import_module(f"{package}.{name}"), attribute, None)
        if found is not None:
            return found
    shown = repr(name) if len(repr(name)) < 80 else "so long a name"
    own = [one for one in known if hasattr(import_module(f"{package}.{one}"), attribute)]
    near = nearest(name, own) if isinstance(name, str) else ""
    raise ValueError(f"nothing is called {shown}{near or '; there are ' + (', '.join(own) or 'none')}")
