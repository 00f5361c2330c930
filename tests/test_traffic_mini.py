"""configs/allinone_custom.yml on real pictures. The data set is not part of the project; without it these tests are skipped."""

import os
from pathlib import Path

import pytest

from ppmtl import build, cli

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("PPMTL_TRAFFIC_MINI", ROOT.parent / "shared" / "data" / "traffic_mini"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="traffic_mini is not here; set PPMTL_TRAFFIC_MINI to try it")


@pytest.fixture(scope="module")
def parts():
    parser = cli.parser("test")
    config = str(ROOT / "configs" / "allinone_custom.yml")
    settings, _ = cli.load_settings(parser.parse_args(["-c", config, "-o", f"data_root={DATA}"]))
    assert build.missing_paths(settings, training=True, evaluation=True) == []
    classes = build.build_classes(settings)
    tasks = build.build_tasks(settings, classes)
    return classes, tasks, build.build_sources(settings, classes, tasks), build.build_val_datasets(settings, classes)


def test_class_names_and_ids_come_from_the_files(parts):
    classes = parts[0]
    assert {name: len(c) for name, c in classes.items()} == {"seg": 11, "cls": 9, "det": 4}
    assert classes["det"].ids == (1, 2, 3, 4)


def test_every_source_yields_batches_of_the_configured_size(parts):
    for name, size in (("seg", (176, 240)), ("cls", (96, 96)), ("det", (192, 192))):
        batch = parts[2][name].batch(0)
        assert tuple(batch.images.shape[1:3]) == size
        assert set(batch.targets) == {name}


def test_every_validation_picture_has_its_labels(parts):
    val = parts[3]
    assert {name: len(data) for name, data in val.items()} == {"seg": 106, "cls": 588, "det": 105}
    assert val["seg"][0].label_map is not None
    assert val["det"][0].boxes is not None
    assert val["cls"][0].class_index is not None
