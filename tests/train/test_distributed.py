"""Two processes on CPU, really started, by --nprocs' helper and by Paddle's launcher."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from paddle import nn

from ppmtl.predict.processes import JobError
from ppmtl.train import distributed, launch

JOB = Path(__file__).with_name("distributed_job.py")
LAUNCHER = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", "log"]
SECONDS = 90  # one that hangs does so for ever; the machine may be busy


def run(folder, check, *launcher):
    command = [sys.executable, *launcher, str(JOB), "1" if launcher else "2", check, str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Returns what each of two processes found, by rank."""
    folder = tmp_path_factory.mktemp("agreement")
    result = run(folder, "agreement")
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads((folder / "found.json").read_text())


def test_every_process_gets_what_every_process_gave(found):
    assert [of_rank["all_gather"] for of_rank in found] == [["of 0", "of 1"]] * 2


def test_the_gradient_is_that_of_the_joined_batch(found):
    for of_rank in found:
        gradients = of_rank["gradients"]
        assert gradients["averaged"] < 1e-6 < 0.01 < gradients["largest"]
        assert gradients["own"] > 0.01  # the halves differ, so an average is needed


def test_two_processes_with_missing_labels_equal_one_with_the_joined_batch(found):
    labelled = [[of["own"] for of in of_rank["gaps"]] for of_rank in found]
    pairs = set(zip(*labelled, strict=True))
    assert any(0 in pair and sum(pair) for pair in pairs)  # no label on one process
    assert (0, 0) in pairs  # none anywhere
    assert any(one != other and one * other for one, other in pairs)  # more on one than on the other
    for of_rank in found:
        for of, own in zip(of_rank["gaps"], zip(*labelled, strict=True), strict=True):
            assert of["has_gradient"]
            assert of["gradient"] < 1e-6
            assert of["loss"] < 1e-6
            assert (of["largest"] > 0.01) == bool(sum(own))
            assert of["counted"] == [sum(own), 4]


def test_weights_start_and_stay_equal(found):
    first, second = (of_rank["training"] for of_rank in found)
    assert first["own"] != second["own"]
    assert first["start"] == second["start"] == first["own"]
    assert first["end"] == second["end"] != first["start"]


def test_a_step_makes_one_all_reduce_of_the_gradients_and_one_small_one(found):
    parameters, values = 6, 1675
    assert found[0]["training"]["calls"] == [parameters, values]


def test_a_gradient_that_only_one_process_has_counts_as_zero_on_the_others(found):
    for of_rank in found:
        assert of_rank["missing"] == [[2.0, 2.0], [3.0, 3.0], None]


def test_batch_norm_statistics_are_averaged_in_one_all_reduce_and_frozen_ones_left_alone(found):
    (mean_0, variance_0), (mean_1, variance_1) = (of_rank["buffers"]["before"] for of_rank in found)
    assert mean_0 != mean_1
    for rank, of_rank in enumerate(found):
        mean, variance = of_rank["buffers"]["after"]
        np.testing.assert_allclose(mean, np.mean([mean_0, mean_1], axis=0), atol=1e-7)
        np.testing.assert_allclose(variance, np.mean([variance_0, variance_1], axis=0), rtol=1e-6)
        assert of_rank["buffers"]["frozen"] == [rank]
        assert of_rank["buffers"]["calls"] == [2 * 2 * 8]
    assert found[0]["buffers"]["after"] == found[1]["buffers"]["after"]


def test_each_process_has_one_thread(found):
    assert found[0]["omp"] == "1"


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("waits_elsewhere", "distributed_job.py: rank 1 of 2: 7.png: cannot be decoded"),
        ("killed", "distributed_job.py: rank 1 of 2 ended by SIGKILL"),
    ],
)
def test_one_process_fails_and_the_job_ends_with_its_message_once(tmp_path, check, message):
    started = time.monotonic()
    result = run(tmp_path, check)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert sum(line.startswith("distributed_job.py: ") for line in lines) == 1, result.stderr
    assert lines[-1].startswith(message)
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("finished_*"))
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize(
    ("check", "message"),
    [
        ("bad_image", "rank 1 of 2: 7.png: cannot be decoded"),
        ("killed", "rank 1 of 2 ended without a word: killed, perhaps for lack of memory"),
    ],
)
def test_under_paddles_launcher_the_first_process_says_who_failed(tmp_path, check, message):
    result = run(tmp_path, check, *LAUNCHER)
    assert result.returncode != 0
    assert message in (tmp_path / "log" / "workerlog.0").read_text(), result.stderr
    assert message in result.stdout + result.stderr
    assert not list(tmp_path.glob("finished_*"))


def test_sync_batch_norm_keeps_parameters_statistics_and_names():
    """The optimizer is built before; the layers themselves run on GPU only."""
    model = nn.Sequential(nn.Conv2D(3, 4, 1), nn.Sequential(nn.BatchNorm2D(4), nn.GELU()))
    before = model.state_dict()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(model[1][0], nn.SyncBatchNorm)
    assert converted is model
    assert list(model.state_dict()) == list(before)
    assert all(value is before[name] for name, value in model.state_dict().items())


def test_nprocs_is_refused_under_the_launcher(monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    with pytest.raises(ValueError, match="leave it out under"):
        launch.launch(print, (), 2)


@pytest.mark.parametrize(
    ("error", "message", "traceback"),
    [
        (KeyError("boxes"), "rank 1 of 4: KeyError: 'boxes'", True),
        (ValueError("7.png: cannot be decoded"), "rank 1 of 4: 7.png: cannot be decoded", False),
        (FileNotFoundError(2, "No such file", "7.png"), "rank 1 of 4: [Errno 2] No such file: '7.png'", False),
        (KeyboardInterrupt(), "rank 1 of 4: KeyboardInterrupt", False),
        (OSError("(External) NCCL error"), "rank 1 of 4: OSError: (External) NCCL error", True),
    ],
)
def test_what_one_of_several_raises_names_its_rank_and_explains_itself(monkeypatch, capsys, error, message, traceback):
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(distributed.dist, "get_rank", lambda: 1)
    with pytest.raises(JobError, match=re.escape(message)), distributed.guard():
        raise error
    assert ("Traceback" in capsys.readouterr().err) == traceback


def test_one_process_alone_raises_what_it_raised():
    with pytest.raises(KeyError), distributed.guard():
        raise KeyError("boxes")


@pytest.mark.parametrize(
    ("codes", "message", "cause"),
    [
        ([1, 1, None], "rank 1 of 3: bad", "rank 1 of 3: bad"),
        ([1, -9, 1], None, "rank 1 of 3 ended by SIGKILL; perhaps the system killed it for lack of memory"),
    ],
)
def test_the_cause_is_named_not_its_consequences(codes, message, cause):
    with pytest.raises(JobError, match=f"^{cause}$"):
        launch._raise_the_cause(codes, message)


def test_an_exit_code_that_all_chose_is_the_jobs():
    with pytest.raises(SystemExit) as end:
        launch._raise_the_cause([143, 143], None)
    assert end.value.code == 143
    launch._raise_the_cause([0, 0], None)
