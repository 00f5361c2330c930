"""One data set that supervises three tasks in two views of the same draw: trained, evaluated, resumed, in several processes."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import paddle
import pytest
from small_model import tool
from small_streets import config, write_streets

from ppmtl import build
from ppmtl.data import reader as reader_module
from ppmtl.models.backend import PaddleBackend
from ppmtl.predict.evaluate import EvalSet, evaluate


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    write_streets(tmp_path)
    return config(tmp_path)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) == 3  # weights, average, optimizer
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def log_lines(folder: Path) -> list[str]:
    """The training lines without what depends on the clock."""
    lines = (folder / "train.log").read_text().splitlines()
    return [re.sub(r"^.*?(step: .*?) eta:.*", r"\1", line) for line in lines if "Epoch:" in line]


def test_it_trains_evaluates_and_resumes_to_the_same_bytes(streets: Path) -> None:
    folder = streets.parent
    tool("train", "-c", streets, "--eval", "-o", f"save_dir={folder / 'one'}", cwd=folder)
    lines = log_lines(folder / "one")
    assert len(lines) == 4
    assert all(f"loss_{task}:" in line for line in lines for task in ("seg", "det", "cls"))
    metrics = json.loads((folder / "one/latest/state.json").read_text())["progress"]["history"][-1]
    assert {"seg.miou", "det.ap50", "cls.top1"} <= set(metrics)
    tool("train", "-c", streets, "--eval", "-o", f"save_dir={folder / 'two'}", "train.num_workers=2", cwd=folder)
    assert log_lines(folder / "two") == lines
    tool("train", "-c", streets, "-r", folder / "one/step_0000002", "-o", f"save_dir={folder / 'three'}", cwd=folder)
    assert log_lines(folder / "three") == lines[2:]
    assert digests(folder / "one/latest") == digests(folder / "two/latest") == digests(folder / "three/latest")


def test_two_processes_share_the_samples_and_measure_what_one_measures(streets: Path) -> None:
    folder = streets.parent
    tool(
        "train",
        "-c",
        streets,
        "--nprocs",
        2,
        "-o",
        f"save_dir={folder / 'pair'}",
        "sources.street.batch_size=1",
        cwd=folder,
    )
    weights = f"weights={folder / 'pair/latest'}"
    for name, flags in (("alone", []), ("shared", ["--nprocs", 2])):
        tool("eval", "-c", streets, "-o", weights, "--output_eval", folder / name, *flags, cwd=folder)
    found = [json.loads((folder / name / "metrics.json").read_text())["tasks"] for name in ("alone", "shared")]
    for task in ("seg", "det", "cls"):
        assert {**found[0][task], "seconds_per_image": 0} == {**found[1][task], "seconds_per_image": 0}


def test_tasks_can_be_left_out_and_the_saved_config_runs_again(streets: Path) -> None:
    folder = streets.parent
    tool("train", "-c", streets, "--tasks", "seg,cls", cwd=folder)
    lines = log_lines(folder / "run")
    assert "loss_det" not in lines[0]
    (folder / "boxes.json").unlink()  # nothing of the task left out is needed
    tool("train", "-c", folder / "run/config.yml", "-o", f"save_dir={folder / 'again'}", cwd=folder)
    assert log_lines(folder / "again") == lines


def test_an_image_is_read_once_and_seen_by_the_backbone_once_for_all_tasks(streets: Path, monkeypatch) -> None:
    settings = build.load(str(streets)).settings
    tasks = build.build_tasks(settings)
    sets = build.build_eval_sets(settings, tasks)
    paddle.seed(0)
    model = build.build_model(settings, tasks)
    reads, runs = [], []
    original = reader_module.read_image
    monkeypatch.setattr(reader_module, "read_image", lambda path: reads.append(path) or original(path))
    model.backbone.register_forward_post_hook(lambda *_: runs.append(1))
    together = evaluate(tasks, sets, PaddleBackend(model), batch_size=2)
    assert (len(reads), len(runs)) == (6, 3)
    alone = {name: EvalSet(sets["street"].reader, (name,)) for name in tasks}
    apart = evaluate(tasks, alone, PaddleBackend(model), batch_size=2)
    assert (len(reads), len(runs)) == (6 + 18, 3 + 9)
    for name in tasks:
        assert together.metrics[name].values == pytest.approx(apart.metrics[name].values, nan_ok=True)


def test_the_views_gradients_add_up_to_those_of_their_tasks(streets: Path) -> None:
    settings = build.load(str(streets), ["model.backbone.drop_path_rate=0"]).settings
    tasks = build.build_tasks(settings)
    (source,) = build.build_sources(settings, tasks).values()
    paddle.seed(0)
    model = build.build_model(settings, tasks)
    batches = next(source.loader(0, 1, 0))
    assert {view: list(batch.targets) for view, batch in batches.items()} == {"strong": ["seg", "det"], "weak": ["cls"]}

    def gradient(chosen: list[str]) -> np.ndarray:
        model.clear_gradients()
        model.eval()  # batch statistics would be those of one call or the other
        for batch in batches.values():
            wanted = {task: targets for task, targets in batch.targets.items() if task in chosen}
            if wanted:
                terms = model(batch.images, targets=wanted)
                paddle.add_n([term for of_task in terms.values() for term in of_task.values()]).backward()
        return model.backbone.downsample_layers[0][0].weight.grad.numpy()

    together = gradient(["seg", "det", "cls"])
    apart = sum(gradient([task]) for task in ("seg", "det", "cls"))
    assert np.abs(together).max() > 1e-4
    np.testing.assert_allclose(together, apart, atol=1e-5 * np.abs(together).max())


def test_what_is_learned_by_heart_is_what_is_measured(streets: Path) -> None:
    settings = build.load(str(streets)).settings
    tasks = build.build_tasks(settings)
    size = settings.sources["street"].batch_size
    repeating = build.build_sources(settings, tasks, repeat=1)
    (measured,) = build.overfit_sets(settings, repeating).values()
    street = repeating["street"]
    assert sorted(measured.tasks) == ["cls", "det", "seg"]
    assert sorted(measured.reader[index].path for index in range(len(measured.reader))) == sorted(street.files(5))
    # Both of two processes measure the images of both
    pair = [build.build_sources(settings, tasks, rank=rank, world_size=2, repeat=1)["street"] for rank in range(2)]
    paths = [{of.repeated().path(index) for index in range(len(of.repeated()))} for of in pair]
    assert paths[0] == paths[1] == {*pair[0].files(0), *pair[1].files(0)}
    assert len(paths[0]) == min(2 * size, 6)


def test_overfit_with_eval_measures_the_training_images(streets: Path) -> None:
    folder = streets.parent
    tool("train", "-c", streets, "--eval", "--overfit", 1, "-o", f"save_dir={folder / 'heart'}", cwd=folder)
    assert "validation street: 2 of 6 images" in (folder / "heart/train.log").read_text()
