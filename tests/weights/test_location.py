"""What people type for weights=."""

from pathlib import Path

import pytest

from ppmtl.weights.location import demo_checkpoint, find_weights


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_a_run_means_its_best_model_and_everything_else_itself(tmp_path):
    best, step = checkpoint(tmp_path / "run/best_model"), checkpoint(tmp_path / "run/step_0000002")
    assert find_weights(tmp_path / "run") == find_weights(best) == best
    assert find_weights(str(step)) == step
    for name in ("w.pdparams", "w.safetensors", "w.pth"):
        (tmp_path / name).write_bytes(b"")
        assert find_weights(tmp_path / name) == tmp_path / name


def test_of_a_run_without_best_model_no_other_checkpoint_is_taken_and_the_newest_is_named(tmp_path):
    checkpoint(tmp_path / "run/step_0000002")
    newest = checkpoint(tmp_path / "run/step_0000010")
    with pytest.raises(ValueError, match=rf"run without best_model .* say so: weights={newest}$"):
        find_weights(tmp_path / "run")
    (tmp_path / "run/latest").symlink_to("step_0000002")  # a run may go back
    with pytest.raises(ValueError, match=r"weights=.*latest$"):
        find_weights(tmp_path / "run")


def test_a_best_model_whose_save_was_interrupted_is_found(tmp_path):
    hidden = checkpoint(tmp_path / "run/.best_model.old")
    assert find_weights(tmp_path / "run") == hidden


@pytest.mark.parametrize("typed", ["outptu/demo/best_model", "output/dmeo/best_model", "output/demo/best-modle"])
def test_a_misspelt_path_is_answered_with_the_one_that_exists(tmp_path, typed):
    best = checkpoint(tmp_path / "output/demo/best_model")
    with pytest.raises(ValueError, match=f"does not exist; did you mean {best}\\? .* holds "):
        find_weights(tmp_path / typed)


def test_a_path_like_no_other_lists_what_is_beside_it(tmp_path):
    checkpoint(tmp_path / "zzz")
    with pytest.raises(ValueError, match=r"^pretrained: .* does not exist; .* holds zzz$"):
        find_weights(tmp_path / "run", "pretrained")


def test_a_folder_without_weights_says_what_it_holds(tmp_path):
    checkpoint(tmp_path / "one_run/best_model")
    with pytest.raises(ValueError, match=r"no best_model; .* In it are one_run"):
        find_weights(tmp_path)


def test_demo_means_the_weights_of_the_package_unless_there_is_such_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_weights("demo") == demo_checkpoint()
    checkpoint(tmp_path / "demo")
    assert find_weights("demo") == Path("demo")


def test_demo_is_suggested_and_a_bundle_is_named_as_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="demmo does not exist; did you mean 'demo'"):
        find_weights("demmo")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "infer_cfg.yml").write_text("")
    with pytest.raises(ValueError, match=r"is an exported bundle.* --model_dir bundle"):
        find_weights("bundle")
