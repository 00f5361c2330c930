"""What a wrong key, name, flag or parent probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppmtl import build, cli
from ppmtl.config import ConfigError, load_config

DEMO = str(Path(__file__).parents[2] / "configs" / "allinone_demo.yml")


def problem(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        build.load(DEMO, overrides)
    (only,) = caught.value.problems
    return only.partition(" allowed: ")[0]


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("epochs=3", "'train.epochs'"),
        ("lr=1", "'optimizer.learning_rate'"),
        ("clip_nrm=1", "'optimizer.clip_norm'"),
        ("depth_multiplier=0.5", "'model.heads.det.neck.depth_multiplier'"),
        ("batch_size=4", "'eval.batch_size' or 'sources.seg.batch_size' or 'sources.cls.batch_size'"),
        ("loss_weights.seg=2", "'weights' or 'train.loss_weights'"),
        ("train.learning_rate=1", "'optimizer.learning_rate'"),
        ("train.epoch=4", "'epochs'"),
        ("sources.seg.batchsize=4", "'batch_size'"),
    ],
)
def test_a_key_of_another_section_is_found(override: str, meant: str) -> None:
    assert problem(override).endswith(f"did you mean {meant}?")


def test_a_key_like_no_other_has_no_hint() -> None:
    assert problem("zzzz=1").endswith("unknown key 'zzzz';")


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("tasks.sge.input_size=[1, 1]", "tasks.seg"),
        ("model.heads.de.channels=4", "model.heads.det"),
        ("sources.dett.batch_size=3", "sources.det"),
    ],
)
def test_a_name_that_only_an_override_knows_may_be_a_misspelt_one(override: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build.load(DEMO, [override])
    assert f"or did you mean '{meant}'?" in caught.value.problems[0]


@pytest.mark.parametrize(
    ("flag", "end"),
    [
        ("--tsks", "--tsks; did you mean --tasks?"),
        ("--epochs=3", "--epochs=3; --epochs is no flag, values of the config are set with -o train.epochs=..."),
        ("--lr", "--lr; --lr is no flag, values of the config are set with -o optimizer.learning_rate=..."),
        ("--zzzz", "unrecognized arguments: --zzzz"),
    ],
)
def test_an_unknown_flag_names_the_flag_or_key_that_it_may_be(
    flag: str, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = cli.parser("")
    cli.add_nprocs(parser, "train")  # --epochs is like it, but is a key
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["-c", DEMO, flag])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.strip().endswith(end)


def test_a_copied_config_that_does_not_find_its_parent_says_how(tmp_path: Path) -> None:
    copy = tmp_path / "mine.yml"
    copy.write_text(Path(DEMO).read_text())
    with pytest.raises(ConfigError) as caught:
        load_config(copy)
    (only,) = caught.value.problems
    assert f"{tmp_path / 'allinone_traffic.yml'} does not exist; _base_ starts from the folder of the file" in only
    shipped = Path(DEMO).resolve().with_name("allinone_traffic.yml")
    assert f"write _base_: {shipped}, which is the one that comes with ppmtl" in only
    assert "python tools/config.py show -c ORIGINAL > COPY" in only
    copy.write_text(f"_base_: {shipped}\n")
    assert load_config(copy).data
    copy.write_text("_base_: my_parent.yml\n")
    with pytest.raises(ConfigError, match=r"those that come with ppmtl are in .*configs"):
        load_config(copy)
