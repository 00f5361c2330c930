"""Contact sheets of what the network sees."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_streets import config, write_streets

from ppmtl import build
from ppmtl.studies.preview import labelled, training_sheets, view_sheets

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def streets(tmp_path):
    write_streets(tmp_path)
    return config(tmp_path)


def built(path, *overrides):
    settings = build.load(str(path), overrides).settings
    return settings, build.build_tasks(settings)


def test_a_sheet_shows_the_pixels_and_labels_of_the_batch_that_training_gets(streets):
    settings, tasks = built(streets)
    (source,) = build.build_sources(settings, tasks).values()
    sheets = {sheet.name: sheet for sheet in training_sheets(settings, tasks, step=3, batches=1, heads={})}
    assert list(sheets) == ["street_strong_step000003", "street_weak_step000003"]
    assert sheets["street_weak_step000003"].title == "source street, view weak, step 3: cls"
    batch = source.batches(2)  # steps are counted from 1 in the log, from 0 in the stream
    for row, tile in enumerate(sheets["street_weak_step000003"].tiles):
        assert tile.title == f"{Path(source.files(2)[row]).name}  64x64"
        shown = cv2.resize(batch["weak"].images[row], tile.image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        np.testing.assert_array_equal(tile.image[60:], shown[60:])  # below the name of the class
        assert (tile.image[:30] != shown[:30]).any()
    for row, tile in enumerate(sheets["street_strong_step000003"].tiles):
        seen = source.samples(2, row)["strong"]
        np.testing.assert_array_equal(tile.image, labelled(seen, {name: tasks[name] for name in ("det", "seg")}))
    assert "seg: square" in sheets["street_strong_step000003"].legend


def test_accumulated_batches_are_numbered_inside_their_step(streets):
    settings, tasks = built(streets, "train.accumulate=2")
    (source,) = build.build_sources(settings, tasks).values()
    sheets = [s for s in training_sheets(settings, tasks, step=2, batches=3, heads={}) if "weak" in s.name]
    assert [s.name for s in sheets] == [
        "street_weak_step000002_1",
        "street_weak_step000002_2",
        "street_weak_step000003_1",
    ]
    names = [tile.title.split()[0] for s in sheets for tile in s.tiles]
    assert names == [Path(file).name for number in (2, 3, 4) for file in source.files(number)]


def test_images_beyond_the_usual_range_and_without_labels_are_drawn(streets):
    _, tasks = built(streets)
    sample = build.build_sources(*built(streets))["street"].samples(0, 0)["strong"]
    sample.image = sample.image.astype(np.float32) * 3 - 100
    sample.labels = {}
    tile = labelled(sample, tasks)
    assert tile.dtype == np.uint8
    assert (tile.min(), tile.max()) == (0, 255)


def test_views_move_the_labels_with_the_image(streets):
    settings, tasks = built(streets, "tasks.det.input_size=[32,32]")
    tasks["det"].change_tta({"scales": (1.0, 2.0)})
    sheets = list(view_sheets(build.build_eval_sets(settings, tasks), tasks, 1))
    assert [sheet.name for sheet in sheets] == ["tta_street_0_seg", "tta_street_0_det", "tta_street_0_cls"]
    tiles = {tile.title: tile.image for tile in sheets[1].tiles}
    assert list(tiles) == ["32x32", "32x32, mirrored", "64x64", "64x64, mirrored"]
    plain, mirrored = (labelled_columns(tiles[name]) for name in ("64x64", "64x64, mirrored"))
    assert plain[0] + mirrored[1] == pytest.approx(tiles["64x64"].shape[1], abs=4)


def labelled_columns(image):
    """The first and last column of the bright square, which has the box around it."""
    columns = np.flatnonzero((image > 200).all(axis=2).sum(axis=0) > 60)
    return columns[0], columns[-1]


def test_the_tool_writes_sheets_of_batches_anchors_and_views(streets, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("preview_script", ROOT / "tools" / "preview.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.main(["-c", str(streets), "--assign", "--tta", "--no-flip", "--out", str(tmp_path / "seen")]) == 0
    written = [Path(line).stem for line in capsys.readouterr().out.split()]
    strong = "street_strong_step000001"
    assert written[:3] == [strong, f"{strong}_assigned_det", "street_weak_step000001"]
    assert written[3:] == ["tta_street_0_seg", "tta_street_0_det", "tta_street_0_cls"]
    for name in written:
        sheet = cv2.imread(str(tmp_path / "seen" / f"{name}.png"))
        assert min(sheet.shape[:2]) > 400
        assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100
