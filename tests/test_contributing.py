"""CONTRIBUTING.md and what lies beside it: true to the tree, to the README and to the packaging."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from added_modules import CONTRIBUTING

import fastuda

ROOT = CONTRIBUTING.parent
TEXT = CONTRIBUTING.read_text()


def command(text: str, mark: str) -> str:
    found = re.search(rf"<!-- {mark} -->\n```bash\n(.*?)```", text, re.S)
    assert found is not None
    return found[1]


def test_set_up_is_the_readmes_test_command() -> None:
    assert command(TEXT, "set-up") == command((ROOT / "README.md").read_text(), "tests")


def test_every_file_that_it_names_is_there() -> None:
    shown = set(re.findall(r"<!-- file: (\S+) -->", TEXT))
    named = set(re.findall(r"`((?:fastuda|kernels|tests|bench)/[\w/.-]+)`", TEXT))
    missing = [name for name in sorted(named - shown) if not (ROOT / name).exists()]
    assert missing == []
    assert not any((ROOT / name).exists() for name in shown)


def test_pre_commit_runs_the_checks_that_the_tests_run() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = [re.search(r"exec (.*?)(?: \"\$@\")?'", hook["entry"]) for hook in hooks]
    commands = {entry[1] for entry in entries if entry is not None}
    assert commands == {"ruff check --fix", "ruff format", "mypy", "lint-imports"}
    checks = (ROOT / "tests" / "test_static_checks.py").read_text()
    assert all(f'"{command.split()[0]}"' in checks for command in commands)


@pytest.mark.parametrize("activated", [False, True])
def test_pre_commit_finds_its_tools_in_the_environment_of_the_set_up_or_an_activated_one(
    activated: bool, tmp_path: Path
) -> None:
    """Tools that note how they are called stand in for the real ones, whose folder is not on PATH."""
    assert "`.venv-test/bin/pre-commit install`" in TEXT
    tools = tmp_path / ("elsewhere" if activated else "checkout/.venv-test") / "bin"
    tools.mkdir(parents=True)
    for name in ("ruff", "mypy", "lint-imports"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{tmp_path}/called"\n')
        (tools / name).chmod(0o755)
    checkout = tmp_path / "checkout"
    checkout.mkdir(exist_ok=True)
    shutil.copy(ROOT / ".pre-commit-config.yaml", checkout)
    (checkout / "a.py").touch()
    system = [str(tools)] * activated + ["/usr/bin", "/bin", str(Path(shutil.which("git") or "git").parent)]
    who = {f"GIT_{one}_{what}": "a" for one in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {"PATH": ":".join(system), "HOME": str(tmp_path), "PRE_COMMIT_HOME": str(tmp_path / "home"), **who}
    for command in (
        ("git", "init", "-q"),
        (sys.executable, "-m", "pre_commit", "install"),
        ("git", "add", "a.py", ".pre-commit-config.yaml"),
        ("git", "commit", "-q", "-m", "one"),
    ):
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    called = (tmp_path / "called").read_text().splitlines()
    assert called == ["ruff check --fix a.py", "ruff format a.py", "mypy", "lint-imports"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"] == fastuda.__version__
    assert citation["license"] == project["license"]


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_issue_forms_have_what_a_form_needs(form: Path) -> None:
    content: dict[str, Any] = yaml.safe_load(form.read_text())
    if form.stem == "config":
        assert set(content) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= content.keys()
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields) > 0
    for field in fields:
        assert field["type"] in {"input", "textarea", "dropdown", "checkboxes"}
        assert field["attributes"]["label"]
