"""What `import fastuda` gives a notebook: the commands' own code, by four names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner
from whole_runs import TINY

import fastuda
from fastuda.errors import FastudaError, UsageError
from fastuda.evaluation.result import EvaluationResult, write_result
from fastuda.model.inference import evaluation_logits
from fastuda.recipe.file import load_recipe
from fastuda_cli.main import app
from fastuda_kernels.pseudo_label import pseudo_label

SIZE = (75, 43)
README = Path(__file__).resolve().parents[1] / "README.md"
_MAKE: dict[str, Callable[[Path], Any]] = {
    "text": str,
    "path": lambda path: path,
    "Pillow": Image.open,
    "numpy": lambda path: pixels_of(path),
    "mirrored twice": lambda path: pixels_of(path)[:, ::-1].copy()[:, ::-1],
    "torch": lambda path: torch.from_numpy(pixels_of(path)),
    "view": lambda path: torch.from_numpy(pixels_of(path)).permute(2, 0, 1).contiguous().permute(1, 2, 0),
}


def pixels_of(path: Path) -> Any:
    with Image.open(path) as file:
        return np.asarray(file).copy()


def noise(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    noise(0).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def fastuda_command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_an_import_loads_nothing_heavy_and_says_what_there_is() -> None:
    code = (
        "import sys, fastuda; found = dir(fastuda); "
        "print([m for m in ('torch', 'nvidia', 'numpy', 'pydantic', 'rich', 'PIL') if m in sys.modules], "
        "set(fastuda.__all__) <= set(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_every_name_is_there_and_documented() -> None:
    assert set(fastuda.__all__) == {
        "FastudaError",
        "Model",
        "Recipe",
        "__version__",
        "errors",
        "evaluate",
        "load",
        "train",
    }
    for name in fastuda.__all__:
        found = getattr(fastuda, name)
        assert name == "__version__" or (found.__name__.removeprefix("fastuda.") == name and len(found.__doc__) > 60)
    with pytest.raises(AttributeError, match="module 'fastuda' has no attribute 'lode'"):
        fastuda.lode  # type: ignore[attr-defined] # noqa: B018


_USE = """
from pathlib import Path
import numpy as np
import fastuda
model = fastuda.load("runs/demo")
reveal_type(model.predict("a.png"))
reveal_type(model.predict(["a.png", Path("b.png"), np.zeros((4, 4, 3), np.uint8)]))
reveal_type(model.predict(np.zeros((4, 4, 3), np.uint8), return_confidence=True))
reveal_type(model.predict("a.png", return_confidence=bool(model.classes)))
reveal_type(model.predict(["a.png"], return_confidence=bool(model.classes)))
reveal_type(fastuda.evaluate(model).iou)
fastuda.train(fastuda.Recipe.load("demo"), Path("runs/again"))
model.predict(3)
fastuda.lode
"""


def test_a_type_checker_sees_the_types(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(_USE)
    command = [sys.executable, "-m", "mypy", str(tmp_path / "use.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=README.parent)
    revealed = re.findall(r'Revealed type is "(?:builtins\.)?(\w+)', done.stdout)
    assert revealed == ["numpy", "list", "tuple", "numpy", "list", "dict"]
    assert len(re.findall(r" \| tuple\[(?:[\w.]*list\[)?numpy", done.stdout)) == 2
    errors = [line.rpartition("[")[2] for line in done.stdout.splitlines() if ": error: " in line]
    assert errors == ["call-overload]", "attr-defined]"], done.stdout


@pytest.mark.parametrize("make", _MAKE.values(), ids=[*_MAKE])
def test_an_image_has_the_same_labels_however_it_is_given(
    make: Callable[[Path], Any], trained: fastuda.Model, photo: Path
) -> None:
    expected = trained.predict(photo)
    assert expected.shape == SIZE[::-1]
    assert expected.dtype == np.uint8
    assert len(np.unique(expected)) >= 3
    assert np.array_equal(trained.predict(make(photo)), expected)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("tag", [1, 6])
def test_predictions_are_to_the_bit_what_the_command_writes(
    tag: int, tiled: bool, weights: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    noise(1, (150, 77)).save(tmp_path / "a.jpg", exif=exif)
    options = ["--values", "train-ids", "--device", "cpu", *(["--tiled"] if tiled else [])]
    for augmentation in ([], ["--flip", "--scales", "0.5,1"]):
        out = tmp_path / f"out{len(augmentation)}"
        fastuda_command("predict", weights, tmp_path / "a.jpg", "--out", out, *options, *augmentation)
        model = fastuda.load(weights, device="cpu")
        changes: dict[str, Any] = {"flip": True, "scales": [0.5, 1]} if augmentation else {}
        labels = model.predict(tmp_path / "a.jpg", tiled=tiled, **changes)
        assert labels.shape == ((77, 150) if tag == 1 else (150, 77))
        assert np.array_equal(labels, pixels_of(out / "a_labelTrainIds.png"))
        overlay = model.overlay(tmp_path / "a.jpg", labels)
        assert np.array_equal(np.asarray(overlay), pixels_of(out / "a_overlay.png"))


def test_several_images_come_back_as_they_were_given(trained: fastuda.Model, tmp_path: Path) -> None:
    images = [noise(i) for i in range(3)]
    apart = [trained.predict(image) for image in images]
    batch = np.stack([np.asarray(image) for image in images])
    for given in (batch, torch.from_numpy(batch)):
        labels = trained.predict(given)
        assert labels.shape == (3, *SIZE[::-1])
        assert labels.dtype == np.uint8
        assert np.array_equal(labels, np.stack(apart))
    images[1].save(tmp_path / "1.png")
    small = noise(4, (20, 30))
    mixed = trained.predict([images[0], str(tmp_path / "1.png"), torch.from_numpy(batch[2]), small])
    assert isinstance(mixed, list)
    for found, expected in zip(mixed, [*apart, trained.predict(small)], strict=True):
        assert np.array_equal(found, expected)
    assert trained.predict([]) == []
    assert trained.predict(batch[:0]).shape == (0, *SIZE[::-1])


@pytest.mark.parametrize("options", [{}, {"flip": True, "scales": (0.5, 1.0)}])
def test_confidence_is_the_largest_probability_of_the_upsampled_answer(
    options: dict[str, Any], trained: fastuda.Model
) -> None:
    image = noise(2)
    labels, confidence = trained.predict(image, return_confidence=True, **options)
    assert confidence.shape == SIZE[::-1]
    assert confidence.dtype == np.float32
    model = trained.augmented(**options)
    small = torch.from_numpy(np.asarray(image.resize((64, 32), Image.Resampling.BICUBIC)).copy())[None]
    logits = evaluation_logits(model.network, small, model.recipe.eval, model.passes).logits
    found: tuple[Tensor, Tensor] = pseudo_label(logits, SIZE[::-1])
    np.testing.assert_allclose(confidence, found[1][0].numpy(), atol=2e-6)
    assert np.array_equal(labels, trained.predict(image, **options))
    assert (labels == found[0][0].numpy()).mean() > 0.999
    batch = np.stack([np.asarray(image)] * 2)
    both, confidences = trained.predict(batch, return_confidence=True, **options)
    assert np.array_equal(both[1], labels)
    assert np.array_equal(confidences[1], confidence)
    lists = trained.predict([image], return_confidence=True, **options)
    assert [len(one) for one in lists] == [1, 1]


def test_windows_have_the_confidence_of_their_own_answer(trained: fastuda.Model) -> None:
    image = noise(3, (200, 32))
    labels, confidence = trained.predict(image, return_confidence=True, tiled=True)
    assert np.array_equal(labels, trained.predict(image, tiled=True))
    window = trained.predict(image.crop((0, 0, 64, 32)), return_confidence=True, tiled=True)
    assert np.array_equal(labels[:, :40], window[0][:, :40])
    assert np.array_equal(confidence[:, :40], window[1][:, :40])
    assert not np.array_equal(labels, trained.predict(image))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_pillow_images_of_other_modes_are_predicted_as_their_files_are(
    mode: str, trained: fastuda.Model, tmp_path: Path
) -> None:
    image = noise(5).convert(mode)
    name = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    more: dict[str, Any] = {"transparency": bytes(range(256))} if mode == "P" else {}
    image.save(name, **more)
    expected = trained.predict(name)
    with Image.open(name) as opened:
        assert np.array_equal(trained.predict(opened), expected)
        assert ("transparency" in opened.info) == (mode == "P")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros((3, 40, 50), np.uint8), ValueError, r"uint8 \[3, 40, 50\] came; move its channels to the end"),
        (np.zeros((40, 50), np.uint8), ValueError, r"uint8 \[40, 50\] came"),
        (np.zeros((40, 0, 3), np.uint8), ValueError, r"uint8 \[40, 0, 3\] came"),
        (np.zeros((2, 40, 50, 4), np.uint8), ValueError, r"uint8 \[40, 50, 4\] came"),
        (np.zeros((40, 50, 3)), TypeError, r"float64 \[40, 50, 3\] came, and pixels are uint8 from 0 to 255"),
        (torch.zeros(40, 50, 3), TypeError, r"float32 \[40, 50, 3\] came"),
        (torch.zeros(2, 3, 40, 50), TypeError, r"float32 \[3, 40, 50\] came"),
        (Image.new("F", (4, 4)), ValueError, "mode F came, whose pixels are no colours; convert it to RGB"),
        (None, TypeError, "NoneType came; an image is a path, a Pillow image, or uint8 RGB"),
        ([["a.png"]], TypeError, "list came"),
        ("none.png", FastudaError, r"none\.png: no such image"),
        (".", FastudaError, "is no file"),
    ],
)
def test_what_is_no_image_is_named_with_what_would_be_one(
    given: Any, error: type[Exception], message: str, trained: fastuda.Model
) -> None:
    with pytest.raises(error, match=message):
        trained.predict(given)


def test_a_damaged_file_and_a_wrong_scale_are_what_the_user_can_mend(trained: fastuda.Model, photo: Path) -> None:
    with pytest.raises(UsageError, match="scales: Input should be greater than 0"):
        trained.predict(photo, scales=[0])
    photo.write_bytes(photo.read_bytes()[:200])
    with pytest.raises(FastudaError, match=r"photo\.png: ends too early"):
        trained.predict(photo)


def test_labels_of_another_image_are_not_laid_over(trained: fastuda.Model, photo: Path) -> None:
    wrong: list[Any] = [np.zeros((4, 5), np.uint8), np.zeros(SIZE[::-1], np.int64)]
    for labels in wrong:
        with pytest.raises(ValueError, match=r"came; .* uint8 \[43, 75\]"):
            trained.overlay(photo, labels)


def test_a_model_says_what_it_is(trained: fastuda.Model, weights: Path) -> None:
    assert repr(trained) == f"<fastuda.Model {weights}: 19 classes, on cpu>"
    assert trained.classes.names[:2] == ("road", "sidewalk")
    assert trained.classes.palette[0] == (128, 64, 128)


def test_a_recipe_is_made_by_name_by_file_or_from_another(tmp_path: Path) -> None:
    recipe = fastuda.Recipe.load("gta2cs+cmix", "method.tau=0.9", source=tmp_path / "a b")
    assert (recipe.method.tau, recipe.source.root, recipe.mix.enabled) == (0.9, tmp_path / "a b", True)
    assert recipe == load_recipe("gta2cs+cmix", ["method.tau=0.9", f'source.root="{tmp_path}/a b"'])
    (tmp_path / "mine.toml").write_text('base = "gta2cs"\nseed = 4\n')
    assert fastuda.Recipe.load(tmp_path / "mine.toml").seed == 4
    assert fastuda.Recipe.load(recipe) == recipe
    changed = fastuda.Recipe.load(recipe, "seed=3", target=tmp_path)
    assert changed == recipe.model_copy(
        update={"seed": 3, "target": recipe.target.model_copy(update={"root": tmp_path})}
    )
    with pytest.raises(UsageError, match="did you mean tau"):
        fastuda.Recipe.load(recipe, "method.taw=0.9")


def stripped(results: dict[str, Any]) -> dict[str, Any]:
    return {key: results[key]["last"]["miou"] for key in ("source_only", "adapted")}


def test_training_is_the_commands_by_name_or_recipe_shown_or_not(
    cache: Path, finished: tuple[Path, dict[str, Any], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*TINY, f"data.cache={cache}"]
    results = fastuda.train("demo", tmp_path / "named", settings=settings, device="cpu", display=False)
    assert capsys.readouterr() == ("", "")
    assert results == json.loads((tmp_path / "named" / "results.json").read_text())
    assert results["recipe"] == "demo"
    assert stripped(results) == stripped(finished[1])
    recipe = fastuda.Recipe.load("demo", *settings)
    own = fastuda.train(recipe, str(tmp_path / "own"), settings="train.iterations=3", device="cpu")
    assert own["recipe"] == "own"
    assert own["source_only"]["miou"] == results["source_only"]["miou"]
    assert own["adapted"]["last"]["iteration"] == 3
    assert "Adaptation: iterations 1 to 3" in capsys.readouterr().out
    again = fastuda.train(recipe, tmp_path / "own", resume=True, device="cpu", display=False)
    assert stripped(again) == stripped(own)
    with pytest.raises(UsageError, match=r"method\.tau: .*own has changed since"):
        fastuda.train(fastuda.Recipe.load(recipe, "method.tau=0.5"), tmp_path / "own", resume=True, display=False)
    with pytest.raises(FastudaError, match="exists already"):
        fastuda.train(recipe, tmp_path / "own", display=False)
    with pytest.raises(UsageError, match="--force"):
        fastuda.train(recipe, tmp_path / "new", force=True, display=False)
    with pytest.raises(UsageError, match="--max-time soon"):
        fastuda.train(recipe, tmp_path / "new", max_time="soon", display=False)


def test_an_evaluation_is_the_commands(
    finished: tuple[Path, dict[str, Any], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, results, _ = finished
    found = fastuda.evaluate(str(path), display=False)
    assert capsys.readouterr().out == ""
    assert isinstance(found, EvaluationResult)
    assert found.miou == found.by_protocol["full"].miou == pytest.approx(results["adapted"]["miou"], abs=1e-4)
    assert list(found.iou) == [*fastuda.load(path).classes.names]
    model = fastuda.load(path, stage="source_only", device="cpu")
    options: dict[str, Any] = {"flip": True, "boundary": True}
    found = fastuda.evaluate(model, **options, save_predictions=tmp_path / "api", values="train-ids", display=False)
    to = ["--save-predictions", tmp_path / "cli", "--values", "train-ids", "--json", tmp_path / "cli.json"]
    charts = ["--charts", tmp_path / "charts"]
    fastuda_command("eval", path, "--stage", "source_only", "--flip", "--boundary", "--device", "cpu", *to, *charts)
    write_result(tmp_path / "api.json", found, model.augmented(flip=True))
    first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("api", "cli"))
    assert {key for key in first if first[key] != second[key]} <= {"command", "date"}
    files = [{p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.*")} for n in ("api", "cli")]
    assert len(files[0]) == 4
    assert files[0] == files[1]


def test_a_released_network_takes_a_recipe_of_any_kind(weights: Path, tmp_path: Path) -> None:
    recipe = fastuda.Recipe.load("gta2cs-edge", "eval.flip=true")
    assert fastuda.load(weights, recipe=recipe, device="cpu").recipe.eval.flip
    (tmp_path / "mine.toml").write_text('base = "gta2cs"\nseed = 4\n')
    assert fastuda.load(str(weights), recipe=tmp_path / "mine.toml", device="cpu").recipe.seed == 4


def test_the_readmes_lines_work_after_the_demo(
    finished: tuple[Path, dict[str, Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    assert len([line for line in snippet.splitlines() if line]) == 5
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(finished[0])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet, names)
    assert pixels_of(tmp_path / "overlay.png").shape == (*names["labels"].shape, 3)


def test_a_script_without_a_guard_trains_and_evaluates_the_demo_wherever_its_cache_is(tmp_path: Path) -> None:
    settings = [*TINY, "warmup.iterations=2", "train.iterations=2", "train.evaluate_every=2"]
    (tmp_path / "script.py").write_text(
        "import os, shutil\nimport fastuda\nprint('once')\nos.environ['FASTUDA_CACHE'] = 'cache'\n"
        f"results = fastuda.train('demo', 'run', settings={settings}, device='cpu', display=False)\n"
        "for cache in ('cache', 'colleague'):\n"
        "    shutil.rmtree('cache')\n"
        "    os.environ['FASTUDA_CACHE'] = cache\n"
        "    assert round(fastuda.evaluate('run', display=False).miou, 4) == round(results['adapted']['miou'], 4)\n"
    )
    command = [sys.executable, "script.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "once\n"), found.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["colleague", "run", "script.py"]


def test_an_evaluation_of_other_data_draws_no_demo(
    finished: tuple[Path, dict[str, Any], str], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (target,) = cache.glob("demo/*/target")
    shutil.copytree(target, tmp_path / "other")
    monkeypatch.setattr("fastuda.data.datasets.draw_demo", lambda *_, **__: pytest.fail("drawn"))
    found = fastuda.evaluate(finished[0], tmp_path / "other", display=False)
    assert found.miou == pytest.approx(finished[1]["adapted"]["miou"], abs=1e-4)
