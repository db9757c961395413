"""README.md: its file tree is true, and its figures come from results files."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def _tree_entries() -> set[str]:
    """Paths named by the README's file tree, from its two-space indentation."""
    block = re.search(r"<!-- tree -->\s*```text\n(.*?)```", README, re.S)
    assert block is not None, "README.md has no file tree after its tree mark"
    entries: set[str] = set()
    parents: list[str] = []
    for line in block.group(1).splitlines():
        if not line.strip():
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        parents = [*parents[:depth], name.rstrip("/")]
        entries.add("/".join(parents) + ("/" if name.endswith("/") else ""))
    return entries


def test_everything_in_the_file_tree_exists() -> None:
    missing = [entry for entry in sorted(_tree_entries()) if not (ROOT / entry).exists()]
    assert missing == []


def test_every_module_is_in_the_file_tree() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.toml", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split()
    entries = _tree_entries()
    # A folder that stands in the tree without children of its own stands for all it holds.
    leaves = {e for e in entries if e.endswith("/") and not any(o != e and o.startswith(e) for o in entries)}
    missing = [
        path
        for path in tracked
        if path not in {*entries, "README.md"}
        and not path.endswith("__init__.py")
        and not any(path.startswith(leaf) for leaf in leaves)
    ]
    assert missing == []


def test_the_tree_lists_rooms_from_the_lowest_up_as_the_import_contracts_have_them() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one.get("containers") == ["fastuda"])
    heights = {room: -i for i, layer in enumerate(layers) for room in layer.split(" : ")}
    rooms = re.findall(r"^  (\w+)(?:/|\.py) ", README[README.index("\nfastuda/ ") : README.index("\nkernels/ ")], re.M)
    assert set(rooms) == heights.keys()
    assert [heights[room] for room in rooms] == sorted(heights[room] for room in rooms)
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / page).read_text()
        assert re.findall(r"(?:rooms?|each) import(?:s|ing)? those (\w+)", text), page
        assert set(re.findall(r"import(?:s|ing)? those (\w+)", text)) == {"below"}, page
