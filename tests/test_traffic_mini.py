"""configs/allinone_custom.yml on real images. The data set is not part of the project; without it these tests are skipped."""

import os
from pathlib import Path

import pytest

from ppmtl import build
from ppmtl.config import load_config

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("PPMTL_TRAFFIC_MINI", ROOT.parent / "shared" / "data" / "traffic_mini"))
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the traffic_mini data set: set PPMTL_TRAFFIC_MINI to its folder"
)


@pytest.fixture(scope="module")
def parts():
    settings = build.load(str(ROOT / "configs" / "allinone_custom.yml"), [f"data_root={DATA}"]).settings
    assert build.missing_paths(settings, training=True, evaluation=True) == []
    tasks = build.build_tasks(settings)
    return tasks, build.build_sources(settings, tasks), build.build_eval_sets(settings, tasks)


def test_class_names_and_ids_come_from_the_files(parts):
    tasks, _, _ = parts
    assert {name: len(task.classes) for name, task in tasks.items()} == {"seg": 11, "cls": 9, "det": 4}
    assert tasks["det"].classes.ids == (1, 2, 3, 4)


def test_every_source_yields_batches_of_the_configured_size(parts):
    _, sources, _ = parts
    config = load_config(ROOT / "configs" / "allinone_custom.yml").data
    for name in ("seg", "cls", "det"):
        (batch,) = sources[name].batches(0).values()
        sizes = [step["size"] for step in config["sources"][name]["transforms"] if "size" in step]
        assert list(batch.images.shape[1:3]) == sizes[-1]
        assert set(batch.targets) == {name}


def test_the_evaluation_sets_have_the_labels_of_their_tasks(parts):
    tasks, _, sets = parts
    assert {name: len(of_set.reader) for name, of_set in sets.items()} == {"seg": 106, "cls": 588, "det": 105}
    for name, of_set in sets.items():
        labels = of_set.reader[0].labels
        assert of_set.tasks == tuple(labels) == (name,)
        assert isinstance(labels[name], tasks[name].label_type)
