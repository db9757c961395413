"""The command that checks a split as a run reads it: what a message tells the user to type."""

from __future__ import annotations

import json
import shlex

from fastuda.classes import PRESETS, ClassSet
from fastuda.data.reading.samples import Split, data_root
from fastuda.layouts import LAYOUTS
from fastuda.printable import on_one_line
from fastuda.recipe import Classes, Data, Domain


def check_command(domain: Domain, split: Split, *, labelled: bool, classes: ClassSet, data: Data) -> str:
    """`fastuda data check …`, in backticks, for the files and the skip list of this split, with labels or without.

    Globs, ids and class lists of one's own are the recipe's to say: there RECIPE stands for the run's, and is explained
    behind the command. Globs of evaluation images are named all the same, since an evaluation may have its own.
    """
    command = ["fastuda", "data", "check", domain.layout, str(data_root(domain))]
    side = "source" if split == "train" and labelled else "target"  # as a run reads them
    preset = next((name for name, names in PRESETS.items() if names == classes.names and not classes.merged), None)
    explained = ""
    if LAYOUTS[domain.layout].by_globs or preset is None:
        command += ["--recipe", "RECIPE", "--domain", side]
        explained = " (RECIPE: this run's, with the --set that it was given)"
        globs = {name: getattr(domain, name) for name in ("val_images", "val_labels") if split == "val"}
        for name, glob in globs.items():
            command += ["--set", f"{side}.{name}={json.dumps(glob)}"] if glob else []
    else:
        settings = _settings(domain, side, preset, data)
        command += ["--domain", side] if any(name.startswith(side) for name in settings) else []
        command += [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    command += ["--split", split] if split != "train" else []
    command.append("--labels" if labelled else "--no-labels")
    return f"`{on_one_line(shlex.join(command))}`{explained}"


def _settings(domain: Domain, side: str, preset: str, data: Data) -> dict[str, str]:
    """What of a known layout's domain, and of what a check depends on beside it, is not as usual."""
    usual = Domain(layout=domain.layout)
    names = [name for name in ("split", "val_split", "listing") if getattr(domain, name) != getattr(usual, name)]
    settings = {f"{side}.{name}": str(getattr(domain, name)) for name in names}
    if names:
        settings = {f"{side}.layout": domain.layout} | settings
    if preset != Classes().preset:
        settings["classes.preset"] = preset
    if data.cache is not None:
        settings["data.cache"] = str(data.cache)
    return settings
