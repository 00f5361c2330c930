"""Labels that are partly missing, two sources for one task, one of them in every second step: gradients, and whole runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from small_model import tool
from small_streets import config, write_streets

from ppmtl import build
from ppmtl.data.canvas import augment
from ppmtl.structures import Sample


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """A config for six images: label maps of four, boxes of four, classes of three; "extra" adds label maps in every second
    step."""
    write_streets(tmp_path)
    for index in (0, 1):
        (tmp_path / f"labels/{index}.png").rename(tmp_path / f"{index}.png")
    boxes = json.loads((tmp_path / "boxes.json").read_text())
    boxes = {key: [entry for entry in boxes[key] if entry.get("image_id", entry.get("id")) < 4] for key in boxes}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    (tmp_path / "list.txt").write_text("1.png 1\n4.png 0\n5.png 1\n")
    path = config(tmp_path)
    content = yaml.safe_load(path.read_text())
    maps = {"type": "label_png", "images": "images", "labels": "labels", "missing_labels": "skip"}
    for joined in (content["sources"]["street"]["dataset"], content["eval"]["datasets"]["street"]):
        joined["images"], joined["readers"]["seg"] = "all", maps
    content["sources"]["extra"] = {"dataset": maps, "batch_size": 3, "tasks": ["seg"], "every": 2}
    path.write_text(yaml.safe_dump(content))
    return path


def lines_of(folder: Path) -> list[dict[str, str]]:
    """The values of the training lines, without what depends on the clock."""
    lines = [line.partition(" eta:")[0] for line in (folder / "train.log").read_text().splitlines() if "Epoch:" in line]
    return [dict(re.findall(r"([\w.@]+): (\S+)", line)) for line in lines]


def test_a_run_counts_what_is_missing_shows_both_sources_and_resumes_bit_for_bit(streets: Path) -> None:
    folder = streets.parent
    tool("train", "-c", streets, "--eval", "-o", f"save_dir={folder / 'one'}", "train.save_every=1", "train.keep_last=9",
         "train.num_workers=1", cwd=folder)  # fmt: skip
    lines = lines_of(folder / "one")
    assert [sorted(name for name in line if "loss_seg" in name) for line in lines] == [
        ["loss_seg@extra", "loss_seg@street.strong"], ["loss_seg@street.strong"],
    ] * 2  # fmt: skip
    counts = [line.get("labelled_cls", "2/2") for line in lines]
    assert sum(int(count[0]) for count in counts) < 8
    assert all(("loss_cls" in line) == (count[0] != "0") for line, count in zip(lines, counts, strict=True))
    log = (folder / "one/train.log").read_text()
    assert "6 images with labels for seg (4), det (4), cls (3)" in log
    assert "labels: 4 images with label maps (2 without one left out)" in log
    assert "batch 3 every 2 steps -> seg" in log
    assert re.search(r"seg miou \S+ \(2 images unlabelled\) \| det ap50 \S+ \(2 .*\| cls top1 \S+ \(3 ", log)
    tool("train", "-c", streets, "-r", folder / "one/step_0000003", "-o", f"save_dir={folder / 'two'}", cwd=folder)
    assert lines_of(folder / "two") == lines[3:]
    for name in ("model", "raw", "optimizer"):
        file = f"latest/{name}.safetensors"
        assert (folder / "one" / file).read_bytes() == (folder / "two" / file).read_bytes(), name


def test_two_processes_train_on_what_is_there(streets: Path) -> None:
    folder = streets.parent
    tool("train", "-c", streets, "--nprocs", 2, "-o", "sources.street.batch_size=1", cwd=folder)
    lines = lines_of(folder / "run")
    assert len(lines) == 4
    assert all(re.fullmatch(r"[0-2]/2", line.get("labelled_cls", "2/2")) for line in lines)
    assert all(np.isfinite(float(line["loss"])) for line in lines)


@pytest.mark.parametrize("task", ["seg", "det", "cls"])
def test_a_step_with_missing_labels_has_the_gradients_of_a_step_with_the_labelled_images_alone(
    streets: Path, task
) -> None:
    settings = build.load(str(streets), ["model.backbone.drop_path_rate=0"]).settings
    tasks = build.build_tasks(settings)
    source = build.build_sources(settings, tasks)["street"]
    paddle.seed(0)
    model = build.build_model(settings, tasks)
    model.eval()  # batch statistics are of all images, labelled or not
    samples = [source.reader[index] for index in range(len(source.reader))]
    assert 2 < sum(task in sample.labels for sample in samples) < len(samples)

    def gradients(chosen: list[Sample]) -> dict[str, np.ndarray]:
        model.clear_gradients()
        images = paddle.to_tensor(np.stack([sample.image for sample in chosen]))
        targets = {name: paddle.to_tensor(array) for name, array in tasks[task].collate(chosen).items()}
        paddle.add_n(list(model(images, targets={task: targets})[task].values())).backward()
        return {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}

    mixed, alone = gradients(samples), gradients([sample for sample in samples if task in sample.labels])
    assert mixed.keys() == alone.keys()
    for name, wanted in alone.items():
        np.testing.assert_allclose(mixed[name], wanted, atol=1e-6 * max(1, np.abs(wanted).max()), err_msg=name)
    assert max(np.abs(wanted).max() for wanted in alone.values()) > 1e-3
    nothing = gradients([replace(sample, labels={}) for sample in samples])
    assert nothing.keys() == alone.keys()
    assert not any(value.any() for value in nothing.values())


def test_transforms_leave_a_missing_label_missing(streets: Path) -> None:
    settings = build.load(str(streets)).settings
    source = build.build_sources(settings, build.build_tasks(settings))["street"]
    sample = next(s for s in map(source.reader.__getitem__, range(6)) if "seg" not in s.labels)
    moved = augment(sample, source.views["strong"].transforms, np.random.default_rng(0))
    assert moved.labels.keys() == sample.labels.keys()
