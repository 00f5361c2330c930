"""A second training in a used save_dir."""

import pytest

from ppmtl.config import ConfigError
from ppmtl.train.used_folder import clear, require_unused


@pytest.fixture
def used(tmp_path):
    for name in ("best_model", "step_0000002", ".step_0000004.new", "eval", "eval_seg_first8", "my_notes"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "file").write_text("x")
    for name in ("train.log", "log.jsonl", "config.yml", "environment.json", "diagnosis.csv", "report.html", "own.txt"):
        (tmp_path / "run" / name).write_text("x")
    (tmp_path / "run" / "latest").symlink_to("step_0000002")
    return tmp_path / "run"


def test_a_new_run_in_a_used_folder_is_refused_with_every_remedy(used):
    (used.parent / "run_2").mkdir()
    with pytest.raises(ConfigError) as caught:
        require_unused(used)
    text = str(caught.value)
    assert "run holds a run already (best_model, step_0000002), which" in text
    for remedy in ("-r.", f"-o save_dir={used}_3.", "--overwrite"):
        assert remedy in text


def test_a_run_goes_on_in_its_own_folder_and_no_other(used):
    require_unused(used, "auto")
    require_unused(used, str(used / "step_0000002"))
    with pytest.raises(ConfigError, match="holds a run already"):
        require_unused(used, str(used.parent / "another" / "step_0000002"))


def test_a_folder_without_checkpoints_is_free(tmp_path):
    require_unused(tmp_path / "none")
    (tmp_path / "train.log").write_text("a run that was stopped before its first checkpoint")
    (tmp_path / ".step_0000002.new").mkdir()
    require_unused(tmp_path)
    (tmp_path / ".step_0000002.new" / "state.json").write_text("complete, and only its name is missing")
    with pytest.raises(ConfigError, match="holds a run already"):
        require_unused(tmp_path)


def test_overwriting_removes_the_run_and_nothing_else(used):
    clear(used)
    assert sorted(path.name for path in used.iterdir()) == ["my_notes", "own.txt"]
    require_unused(used)
