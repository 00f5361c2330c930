"""weights= takes what tools/convert_weights.py writes, and a checkpoint without a config."""

from __future__ import annotations

import numpy as np
import pytest
from small_model import write_model

from ppmtl import build
from ppmtl.config import ConfigError
from ppmtl.models.backbones._convnext_weights import WEIGHT_NAMES
from ppmtl.train.finetune import start_from
from ppmtl.weights.convert import convert, export_all
from ppmtl.weights.pretrained import load_pretrained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_model(folder)
    (folder / "run").mkdir()
    (folder / "random").rename(folder / "run" / "best_model")
    export_all(str(folder / "run"), folder / "whole.pdparams")
    convert(str(folder / "run"), folder / "backbone.pdparams", WEIGHT_NAMES)
    convert(str(folder / "run"), folder / "backbone.safetensors", WEIGHT_NAMES)
    return folder


def state_of(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def loaded(folder, name):
    return state_of(build.load_model(build.load(str(folder / "tiny.yml"), [f"weights={folder / name}"]).settings)[1])


def fresh(folder):
    run = build.load(str(folder / "tiny.yml"))
    tasks = build.build_tasks(run.settings)
    return tasks, build.build_model(run.settings, tasks)


def test_a_run_folder_and_a_pdparams_file_hold_the_same_model(folder):
    wanted, got = loaded(folder, "run"), loaded(folder, "whole.pdparams")
    assert wanted.keys() == got.keys()
    assert all(np.array_equal(array, got[name]) for name, array in wanted.items())
    tasks, model = fresh(folder)
    start_from(model, folder / "whole.pdparams", tasks)
    assert all(np.array_equal(array, wanted[name]) for name, array in state_of(model).items())


@pytest.mark.parametrize("name", ["backbone.pdparams", "backbone.safetensors"])
def test_a_backbone_alone_starts_a_training_and_answers_nothing(folder, name):
    wanted = {n: a for n, a in loaded(folder, "run").items() if n.startswith("backbone.")}
    tasks, model = fresh(folder)
    heads = {n: a for n, a in state_of(model).items() if n.startswith("heads.")}
    start_from(model, folder / name, tasks)
    # Output norms are not among the names that other projects know
    assert all(np.array_equal(a, wanted[n]) for n, a in state_of(model).items() if ".norm" not in n and n in wanted)
    assert all(np.array_equal(a, heads[n]) for n, a in state_of(model).items() if n in heads)
    with pytest.raises(ValueError, match="a backbone and no head"):
        loaded(folder, name)


def test_a_backbone_is_filled_from_a_run_folder(folder):
    _, model = fresh(folder)
    assert load_pretrained(model.backbone, str(folder / "run")).missing == []


def test_a_checkpoint_is_used_with_the_config_inside_and_written_to_beside_it(folder):
    run = build.load_stored(str(folder / "run"), [f"weights={folder / 'run'}", "infer.draw_threshold=0.25"], ["seg"])
    assert list(run.settings.tasks) == ["seg"]
    assert run.settings.infer.draw_threshold == 0.25
    assert (run.settings.save_dir, run.settings.device) == (str(folder / "run"), "auto")
    own = build.load_stored(str(folder / "run"), ["save_dir=mine", "device=cpu"])
    assert (own.settings.save_dir, own.settings.device) == ("mine", "cpu")
    (folder / "copy").symlink_to(folder / "run" / "best_model")
    assert build.load_stored(str(folder / "copy"), []).settings.save_dir == "output/best_model"
    with pytest.raises(ConfigError, match="carries no config"):
        build.load_stored(str(folder / "whole.pdparams"), [])
