"""The flags that all tools share."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ppmtl import cli
from ppmtl.config import ConfigError
from ppmtl.tasks.views import Slicing

ROOT = Path(__file__).resolve().parents[1]
DEMO = str(ROOT / "configs" / "allinone_demo.yml")


def settings_of(*arguments):
    parser = cli.parser("test")
    return cli.load(parser.parse_args(["-c", DEMO, *arguments])).settings


def test_repeated_overrides_are_all_kept_and_the_last_one_wins():
    settings = settings_of("-o", "train.epochs=3", "optimizer.warmup_steps=7", "-o", "train.epochs=4")
    assert (settings.train.epochs, settings.optimizer.warmup_steps) == (4, 7)


def test_seed_and_device_flags_are_overrides():
    settings = settings_of("--seed", "9", "--device", "cpu", "-o", "seed=1")
    assert (settings.seed, settings.device) == (9, "cpu")


@pytest.mark.parametrize("text, expected", [("True", True), ("false", False), ("0", False), ("yes", True)])
def test_a_switch_given_a_word_means_the_word(text, expected):
    parser = argparse.ArgumentParser()
    cli.add_switch(parser, "--use_vdl", "")
    assert parser.parse_args(["--use_vdl", text]).use_vdl is expected
    assert parser.parse_args(["--use_vdl"]).use_vdl is True
    assert parser.parse_args([]).use_vdl is False


def test_scales_without_tta_are_refused_and_with_it_replace_sizes():
    parser = cli.parser("test")
    cli.add_tta_flags(parser)
    alone = parser.parse_args(["-c", DEMO, "--scales", "1.0", "1.5"])
    with pytest.raises(ConfigError, match="add --tta"):
        cli.tta_overrides(alone)
    both = parser.parse_args(["-c", DEMO, "--tta", "--scales", "1.0", "1.5", "--no-flip"])
    assert cli.tta_overrides(both) == {"scales": (1.0, 1.5), "sizes": (), "flip": False}


def sliced(*flags):
    parser = argparse.ArgumentParser()
    cli.add_slice_flags(parser)
    return cli.slicing(parser.parse_args(flags))


def test_one_number_means_both_sides_of_a_tile():
    assert sliced() is None
    assert sliced("--slice_infer") == Slicing()
    assert sliced("--slice_infer", "--slice_size", "640") == Slicing((640, 640))
    both = sliced("--slice_infer", "--slice_size", "480", "640", "--overlap_ratio", "0.1", "0.2")
    assert both == Slicing((480, 640), (0.1, 0.2))


def test_tiles_that_make_no_sense_are_all_said_at_once():
    with pytest.raises(ConfigError) as caught:
        sliced("--slice_size", "0", "--overlap_ratio", "0.5", "1.0")
    assert [p.split(":")[0] for p in caught.value.problems] == [
        "--slice_size and --overlap_ratio change the tiles of large images",
        "--slice_size",
        "--overlap_ratio",
    ]


@pytest.mark.parametrize(
    "error, code", [(ConfigError(["x"]), 2), (ValueError("x"), 1), (FloatingPointError("x"), 1), (OSError("x"), 1)]
)
def test_errors_end_with_a_message_and_a_code_but_no_traceback(error, code, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py"])

    def main(_argv):
        raise error

    with pytest.raises(SystemExit) as exit_info:
        cli.run(main)
    assert exit_info.value.code == code
    assert capsys.readouterr().err.startswith("train.py: ")


LIMITED = {"eval": [], "infer": ["--infer_dir", "x"], "reproduce": [], "compare_tasks": [], "make_demo_weights": []}


def refused(tool, *arguments):
    command = [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "-c", DEMO, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.mark.parametrize("tool", LIMITED)
def test_every_tool_refuses_a_limit_below_one(tool):
    for limit in ("0", "-1"):
        assert f"--limit: expected a whole number above 0, got '{limit}'" in refused(
            tool, *LIMITED[tool], "--limit", limit
        )


def test_every_tool_with_a_limit_is_tested():
    tools = [path for path in (ROOT / "tools").glob("*.py") if "cli.add_limit(" in path.read_text()]
    assert {path.stem for path in tools} == set(LIMITED)
    assert not [path.name for path in (ROOT / "tools").glob("*.py") if '"--limit"' in path.read_text()]


def test_a_threshold_is_a_number_from_0_to_1():
    assert (cli.score("0"), cli.score("0.3"), cli.score("1")) == (0, 0.3, 1)
    for text in ("1.01", "-0.1", "nan", "much"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"from 0 to 1, got '{text}'"):
            cli.score(text)
    assert "expected a number from 0 to 1" in refused("infer", "--draw_threshold", "1.5")


def test_an_image_that_is_none_is_refused_before_anything_is_loaded(tmp_path):
    (tmp_path / "street_1.jpg").touch()
    assert "is a folder: --infer_dir" in refused("infer", "--infer_img", str(tmp_path))
    message = refused("infer", "--infer_img", str(tmp_path / "stret_1.jpg"))
    assert f"does not exist; did you mean {tmp_path / 'street_1.jpg'}?" in message


def test_without_a_config_weights_are_needed():
    parser = cli.parser("test", weights=True)
    with pytest.raises(ConfigError, match="give a config"):
        cli.load(parser.parse_args(["-o", "seed=1"]))
    with pytest.raises(ConfigError, match="'wieghts' is no key, did you mean 'weights'"):
        cli.load(parser.parse_args(["-o", "wieghts=demo"]))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yml")), ids=lambda p: p.name)
def test_every_config_checks(path):
    assert cli.load(cli.parser("test").parse_args(["-c", str(path)])).settings.tasks


def test_the_configs_are_found():
    assert len(list((ROOT / "configs").glob("*.yml"))) >= 4


@pytest.mark.parametrize(
    "processor, expected",
    [("vendor_id\t: AuthenticAMD\nflags\t\t: fma avx2 smep\n", "5"), ("vendor_id\t: GenuineIntel\nflags\t: avx2\n", None),
     ("vendor_id\t: AuthenticAMD\nflags\t: avx\n", None), (None, None)],
)  # fmt: skip
def test_only_on_amd_with_avx2_is_paddles_matrix_library_told_what_to_use(tmp_path, monkeypatch, processor, expected):
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE", raising=False)
    if processor is not None:
        (tmp_path / "cpuinfo").write_text(processor)
    cli._speed_up_matrix_products(tmp_path / "cpuinfo")
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == expected
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "4")
    cli._speed_up_matrix_products(tmp_path / "cpuinfo")
    assert os.environ["MKL_DEBUG_CPU_TYPE"] == "4"  # the user's own choice


def test_every_tool_has_the_parser_that_guesses_what_an_unknown_flag_meant():
    tools = list((ROOT / "tools").glob("*.py"))
    assert len(tools) > 12
    assert [tool.name for tool in tools if "argparse.ArgumentParser(" in tool.read_text(encoding="utf-8")] == []
