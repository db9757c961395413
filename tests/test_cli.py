"""The commands as a user types them: exit codes, messages, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from commands import fastuda, settings
from PIL import Image

from fastuda.classes import CITYSCAPES_IDS
from fastuda_cli.main import app

pytestmark = pytest.mark.usefixtures("commands_cache")


@pytest.fixture(scope="module")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTUDA_CACHE", str(tmp_path_factory.getbasetemp() / "cli-cache"))
        roots = ["--source", drawn / "source", "--target", drawn / "target"]
        code, output = fastuda("train", "demo", *roots, "--run", run, "--iterations", 2, "--device", "cpu", *settings())
    assert code == 0, output
    for part in ("source only", "adapted", "gain", "mIoU (last)", "chosen on the evaluation set", "results.json"):
        assert part in output
    return run


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, fastuda_cli.main; print([m for m in ('torch', 'nvidia', 'numpy', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_lists_the_commands() -> None:
    code, output = fastuda("--help")
    assert code == 0
    for command in ("train", "eval", "predict", "data", "bench", "recipes", "doctor"):
        assert command in output


def as_process(*arguments: str, out: Any, errors: Any = subprocess.PIPE) -> tuple[int, str]:
    """Exit code and standard error of the real command."""
    done = subprocess.run(
        [sys.executable, "-m", "fastuda_cli.main", *arguments], stdout=out, stderr=errors, text=True, timeout=120
    )
    return done.returncode, done.stderr or ""


@pytest.fixture
def full() -> Iterator[IO[str]]:
    """A file on a full disk."""
    with Path("/dev/full").open("w") as file:
        yield file


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("arguments", [["recipes"], ["recipes", "demo"], ["--help"]])
def test_output_that_cannot_be_written_is_one_line(arguments: list[str], full: IO[str]) -> None:
    code, errors = as_process(*arguments, out=full)
    assert code == 1
    assert errors == (
        "error: standard output cannot be written (No space left on device); make room there, or redirect it "
        "elsewhere\n"
    )


@pytest.mark.parametrize("arguments", [["recipes"], ["--help"]])
def test_a_command_whose_output_nobody_reads_ends_in_silence(arguments: list[str], unread: int) -> None:
    assert as_process(*arguments, out=unread) == (1, "")


def test_errors_that_nobody_can_read_keep_their_exit_code(full: IO[str]) -> None:
    assert as_process("recipes", "dmo", out=full, errors=subprocess.STDOUT)[0] == 2


def test_a_check_whose_report_cannot_be_written_is_one_line(
    full: IO[str], drawn: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(SystemExit) as ended:
        app(["data", "check", "gta5", str(drawn / "source")])
    assert ended.value.code == 1
    assert capfd.readouterr().err.count("\n") == 1


def test_training_ends_well_though_all_of_its_output_is_lost(
    full: IO[str], unread: int, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = ["--source", str(drawn / "source"), "--target", str(drawn / "target"), "--run", str(tmp_path / "run")]
    chosen = settings("warmup.iterations=0")
    with os.fdopen(os.dup(unread), "w") as closed:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", closed)
        with pytest.raises(SystemExit) as ended:
            app(["train", "demo", *roots, "--iterations", "2", "--device", "cpu", *chosen])
    assert ended.value.code == 0
    assert (tmp_path / "run" / "results.json").exists()


def test_wrong_usage_exits_with_2() -> None:
    assert fastuda("train")[0] == 2
    assert fastuda("train", "demo", "--no-such-option")[0] == 2
    code, output = fastuda("train", "dmo")
    assert code == 2
    assert "did you mean demo?" in output
    assert "cuda or cpu" in (result := fastuda("train", "demo", "--device", "cuda1"))[1]
    assert result[0] == 2
    code, output = fastuda("train", "demo", "--set", "method.tua=0.5")
    assert code == 2
    assert "method.tua: no such field; did you mean tau?" in output


def test_cuda_without_a_gpu_is_a_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, output = fastuda("train", "demo", "--device", "cuda")
    assert code == 1
    assert "device cuda: torch finds no usable GPU" in output


def test_missing_dali_says_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['nvidia.dali'] = None\n"
        "from typer.testing import CliRunner; from fastuda_cli.main import app\n"
        "result = CliRunner().invoke(app, ['train', 'demo']); print(result.output); sys.exit(result.exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install nvidia-dali-cuda130" in done.stdout


def test_missing_data_folders_are_named(tmp_path: Path) -> None:
    code, output = fastuda("train", "gta2cs", "--device", "cpu")
    assert code == 1
    assert "no folder is given for the gta5 data: pass --source DIR" in output
    code, output = fastuda("train", "gta2cs", "--source", tmp_path / "gone", "--device", "cpu")
    assert code == 1
    assert "gone: no such folder" in output


def test_pretrained_weights_that_are_not_there_are_named(drawn: Path, tmp_path: Path) -> None:
    roots = ["--source", drawn / "source", "--target", drawn / "target", "--run", tmp_path / "run"]
    weights = settings(f"model.weights={tmp_path / 'backbone.pth'}")
    code, output = fastuda("train", "gta2cs", *roots, "--device", "cpu", *weights)
    assert code == 1
    assert 'backbone.pth": no such file, and deeplab-v2 has no published weights of that name' in output
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_refused(trained: Path, drawn: Path) -> None:
    roots = ["--source", drawn / "source", "--target", drawn / "target"]
    code, output = fastuda("train", "demo", *roots, "--run", trained, "--iterations", 2, "--device", "cpu", *settings())
    assert code == 1
    assert "exists already; continue it with --resume" in output


def test_eval_prints_both_protocols_and_equals_the_run(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    code, output = fastuda("eval", trained, "--device", "cpu", "--json", out)
    assert code == 0
    for part in ("full", "released", "mIoU", "pixel accuracy", "mean accuracy"):
        assert part in output
    results = json.loads((trained / "results.json").read_text())
    assert json.loads(out.read_text())["full"]["iou"] == results["adapted"]["iou"]


def test_eval_refuses_what_it_would_ignore(trained: Path, drawn: Path) -> None:
    code, output = fastuda("eval", trained, "--stage", "adopted")
    assert code == 2
    assert "stage adopted: adapted or source_only" in output
    source_val = ["--target", drawn / "source_val", "--layout", "gta5", "--device", "cpu"]
    code, output = fastuda("eval", trained, *source_val, "--split", "train")
    assert code == 2
    assert "has splits by name, and this data set is gta5" in output


def test_resume_needs_nothing_said_twice(trained: Path) -> None:
    code, output = fastuda("train", "demo", "--run", trained, "--resume", "--device", "cpu")
    assert code == 0, output
    assert "adapted" in output


def test_eval_scores_another_data_set_in_its_own_layout(trained: Path, drawn: Path) -> None:
    code, output = fastuda("eval", trained, "--target", drawn / "source_val", "--layout", "gta5", "--device", "cpu")
    assert code == 0
    assert "evaluation: 2 samples" in output or "mIoU" in output
    code, output = fastuda("eval", trained, "--layout", "gta5")
    assert code == 2
    assert "say where that data set lies (--target DIR, in Python target=)" in output


def test_saved_predictions_score_as_eval_says(trained: Path, drawn: Path, tmp_path: Path) -> None:
    code, _ = fastuda("eval", trained, "--device", "cpu", "--save-predictions", tmp_path, "--json", tmp_path / "s.json")
    assert code == 0
    labels = sorted((drawn / "target/gtFine/val").rglob("*_gtFine_labelIds.png"))
    predictions = sorted(tmp_path.rglob("*_labelIds.png"))
    assert len(predictions) == len(labels) == 3
    right = counted = 0
    for label_file, prediction_file in zip(labels, predictions, strict=True):
        label, prediction = (np.asarray(Image.open(file)) for file in (label_file, prediction_file))
        assert prediction.shape == label.shape
        known = np.isin(label, list(CITYSCAPES_IDS))
        right += int((label == prediction)[known].sum())
        counted += int(known.sum())
    assert 100 * right / counted == pytest.approx(
        json.loads((tmp_path / "s.json").read_text())["full"]["pixel_accuracy"], abs=1e-3
    )


def test_predict_writes_overlay_and_label_ids_at_the_images_own_size(trained: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (90, 41), (120, 130, 140)).save(photo)
    code, _ = fastuda("predict", trained, photo, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 0
    with (
        Image.open(tmp_path / "out/photo_labelIds.png") as label,
        Image.open(tmp_path / "out/photo_overlay.png") as overlay,
    ):
        assert label.size == overlay.size == (90, 41)
        assert set(np.unique(np.asarray(label))) <= set(CITYSCAPES_IDS)
    code, output = fastuda("predict", trained, tmp_path / "none.png", "--out", tmp_path / "out", "--device", "cpu")
    assert code == 1
    assert "none.png: no such image or folder" in output


def test_show_writes_a_contact_sheet(trained: Path, drawn: Path, tmp_path: Path) -> None:
    roots = ["--source", drawn / "source", "--target", drawn / "target"]
    for model in ([], ["--model", trained]):
        out = tmp_path / f"{len(model)}.png"
        code, output = fastuda("data", "show", "demo", *roots, *model, "--out", out, "--device", "cpu", *settings())
        assert code == 0
        assert ("pseudo-labels are unknown" in output) == (not model)
        with Image.open(out) as sheet:
            assert sheet.width > 11 * 400


def test_prepare_packs_ahead(drawn: Path) -> None:
    roots = ["--source", drawn / "source", "--target", drawn / "target"]
    code, output = fastuda("data", "prepare", "demo", *roots, *settings())
    assert code == 0
    assert "evaluation" in output


def test_a_pickle_with_code_in_it_does_not_run(drawn: Path, tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb()))
    code, output = fastuda("eval", tmp_path / "bomb.pth", "--target", drawn / "target", "--device", "cpu")
    assert code == 1
    assert "none of it was run" in output
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_class_count_are_refused_as_init(trained: Path, drawn: Path, tmp_path: Path) -> None:
    init = trained / "checkpoints/adapted-last.safetensors"
    roots = ["--source", drawn / "source", "--target", drawn / "target", "--run", tmp_path / "run"]
    sixteen = settings("classes.preset='cityscapes16'")
    code, output = fastuda("train", "demo", *roots, "--init", init, "--device", "cpu", *sixteen)
    assert code == 1
    assert "19 classes, the recipe 16" in output


def test_recipes_lists_and_shows() -> None:
    code, output = fastuda("recipes")
    assert code == 0
    assert "gta2cs-edge" in output
    code, output = fastuda("recipes", "gta2cs")
    assert code == 0
    assert "tau = 0.95" in output


def test_doctor_reports_and_fails_only_when_something_is_missing(drawn: Path, tmp_path: Path) -> None:
    code, output = fastuda("doctor", "--gta5", drawn / "source")
    assert code == 0
    assert "9 samples" in output
    assert fastuda("doctor", "--gta5", tmp_path / "gone")[0] == 1
