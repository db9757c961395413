"""A check's report: as a page, as JSON, as HTML with the suspicious pairs, and what it says to do next."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fastuda_cli.main import app


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two own domains of eight pairs each, recipe beside them; the source's label 7 is speckled."""
    monkeypatch.setenv("FASTUDA_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for side in ("s", "t"):
        for kind in ("images", "labels"):
            (tmp_path / side / kind).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8)).save(tmp_path / side / f"images/{i}.jpg")
            label = np.repeat(np.array([0, 1, 2 if side == "s" else 0], np.uint8), 16)[None].repeat(32, 0)
            if side == "s" and i == 7:
                label = np.where(rng.random(label.shape) < 0.3, 1, label).astype(np.uint8)
            Image.fromarray(label).save(tmp_path / side / f"labels/{i}.png")
    path = tmp_path / "mine.toml"
    path.write_text(
        'base = "gta2cs"\n[classes]\nnames = ["road", "sky", "<car>"]\n'
        + "".join(
            f'[{domain}]\nlayout = "folder"\nroot = "{tmp_path / side}"\n'
            'images = "images/*.jpg"\nlabels = "labels/*.png"\n'
            for domain, side in (("source", "s"), ("target", "t"))
        )
    )
    return path


def run(recipe: Path, *words: object) -> tuple[int, str]:
    side = recipe.parent / "s"
    command = ["data", "check", "folder", side, "--recipe", recipe, "--set", f"source.root={side}", *words]
    result = CliRunner().invoke(app, [str(word) for word in command], env={"COLUMNS": "220"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, result.output


def test_a_suspicious_pair_is_named_and_leaves_the_exit_code_alone(recipe: Path) -> None:
    code, output = run(recipe)
    assert code == 0
    assert "speckled" in output
    assert "8 samples, all sound" in output
    assert "next: look at what looks wrong: --report check.html" in output
    assert f"fastuda data show {recipe}; then: fastuda train {recipe}" in output


def test_the_html_report_holds_faults_classes_of_both_domains_sizes_and_the_pairs(recipe: Path) -> None:
    (recipe.parent / "s/images/3.jpg").write_bytes(b"junk")
    (recipe.parent / "s/labels/2.png").unlink()
    page = recipe.parent / "check.html"
    code, output = run(recipe, "--compare", "folder", recipe.parent / "t", "--report", page)
    assert code == 1
    text = page.read_text()
    for words in ("undecodable: 1", "images/3.jpg", "no label: 1", "images/2.jpg", "48x32", "share in the other"):
        assert words in text
        assert words in output or words == "48x32"
    assert "&lt;car&gt;" in text
    assert "<car>" not in text
    assert "only in the first" in output
    picture = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text)
    assert picture is not None
    with Image.open(io.BytesIO(base64.b64decode(picture[1]))) as sheet:
        # One row: only pair 7 is suspicious; its label is drawn in the classes' colours.
        assert sheet.width > 3 * 480
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24)}
        assert {(128, 64, 128), (70, 130, 180)} <= colours
    assert 'src="http' not in text


def test_the_json_report_counts_a_kind_and_has_ten_examples(recipe: Path) -> None:
    for i in range(8):
        for copy in "abc":
            (recipe.parent / f"s/images/{i}{copy}.jpg").write_bytes(b"")
            (recipe.parent / f"s/labels/{i}{copy}.png").write_bytes((recipe.parent / f"s/labels/{i}.png").read_bytes())
    file = recipe.parent / "check.json"
    code, output = run(recipe, "--report", file, "--compare", "folder", recipe.parent / "t")
    assert code == 1
    report = json.loads(file.read_text())
    assert report["faults"]["empty"]["count"] == 24
    assert len(report["faults"]["empty"]["examples"]) == 10
    assert output.count("the file is empty") == 10
    assert "… and 14 more" in output
    assert "training leaves out 24 of 32 samples from now on" in output
    assert report["left_out"]["skipped"] == 24
    assert report["suspicions"][0]["samples"] == ["7"]
    assert report["comparison"]["shares"]["<car>"][1] == 0


def test_a_set_without_a_sound_sample_is_to_be_mended_first(recipe: Path) -> None:
    for i in range(8):
        (recipe.parent / f"s/images/{i}.jpg").write_bytes(b"")
    code, output = run(recipe)
    assert code == 1
    assert "next: mend these files and check again: no sample is sound" in output
    assert "fastuda train" not in output


def test_a_report_of_another_kind_is_wrong_usage(recipe: Path) -> None:
    code, output = run(recipe, "--report", "check.pdf")
    assert code == 2
    assert "ends in .html or .json" in output


def test_the_others_faults_are_named_too_and_left_out(recipe: Path) -> None:
    (recipe.parent / "t/images/5.jpg").write_bytes(b"")
    code, output = run(recipe, "--compare", "folder", recipe.parent / "t")
    assert code == 1
    assert "images/5.jpg" in output
    assert f"the other, {recipe.parent / 't'}, has 1 fault" in output
    assert "8 samples, all sound" in output


def test_which_domain_is_meant_is_asked_where_both_could_be(recipe: Path) -> None:
    text = recipe.read_text().replace(f'root = "{recipe.parent / "t"}"', f'root = "{recipe.parent / "s"}"')
    recipe.write_text(text.replace("[target]\n", '[target]\nval_images = "images/*.jpg"\n'))
    code, output = run(recipe)
    assert code == 2
    assert "say --domain source|target" in output
    for domain in ("source", "target"):
        code, output = run(recipe, "--domain", domain)
        assert (code, "8 samples, all sound" in output) == (0, True)
    assert run(recipe, "--domain", "both")[0] == 2


def test_a_report_into_a_folder_that_is_not_there_is_refused_before_the_work(recipe: Path) -> None:
    code, output = run(recipe, "--report", recipe.parent / "no/such/x.html")
    assert code == 2
    assert "there is no folder" in output
    assert "Checking" not in output


def test_a_file_name_that_is_no_text_is_checked_packed_and_reported(recipe: Path) -> None:
    for kind, suffix in (("images", ".jpg"), ("labels", ".png")):
        folder = recipe.parent / "s" / kind
        name = os.fsencode(folder) + b"/stra\xdfe" + suffix.encode()
        with open(name, "wb") as file:
            file.write((folder / f"0{suffix}").read_bytes())
    settings = [
        "--set",
        "views.source_size=[48,32]",
        "--set",
        "views.target_size=[48,32]",
        "--set",
        "eval.size=[48,32]",
    ]
    settings += ["--set", "target.val_images=images/*.jpg", "--set", "target.val_labels=labels/*.png"]
    result = CliRunner().invoke(app, ["data", "prepare", str(recipe), *settings], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    with open(os.fsencode(recipe.parent / "s/images") + b"/stra\xdfe.jpg", "wb"):
        pass
    for suffix in ("html", "json"):
        code, output = run(recipe, "--report", recipe.parent / f"check.{suffix}")
        assert code == 1, output
        assert "images/stra\\xdfe.jpg" in output
