"""Kills, full disks and damage: nothing that was saved is ever lost, and the reader is told what happened."""

import errno
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from ppmtl.train import checkpoint

HERE = Path(__file__).resolve().parent
ENV = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"}


def tensors(step, size=1000):
    return {"model": {"w": np.full(size, step, np.float32)}, "optimizer": {"m": np.full(10, step, np.float32)}}


def save(run, *steps, size=1000):
    for step in steps:
        folder = checkpoint.step_folder(run, step)
        checkpoint.save(folder, tensors(step, size), {"progress": {"step": step}})
        checkpoint.mark_latest(run, folder)


def step_in(folder):
    step = checkpoint.read_state(folder)["progress"]["step"]
    assert (checkpoint.read_tensors(folder)["w"] == step).all()
    return step


def names(run):
    return sorted(p.name for p in run.iterdir())


def python(code, *arguments):
    """Runs code in a process of its own, which finds this file's functions."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HERE)!r})\n{code}", *map(str, arguments)]
    return subprocess.Popen(command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ppmtl"), "propagate", True)
    return caplog


# kill -9


def test_a_kill_before_any_file_operation_of_a_save_loses_nothing(tmp_path):
    # in memory where possible: hundreds of flushes take long on a busy disk, and a kill needs no disk
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        command = [sys.executable, HERE / "killed_saves.py", folder]
        done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


LOOP = """
from test_checkpoint_faults import Path, checkpoint, save
for step in range(1, 10000):
    save(Path(sys.argv[1]), step, size=2_000_000)
    checkpoint.drop_old(Path(sys.argv[1]), 1)
    print(step, flush=True)
"""


def test_a_kill_at_a_random_moment_leaves_the_last_checkpoint_that_was_reported(tmp_path):
    moments = random.Random(1)
    for round_ in range(3):
        run = tmp_path / str(round_)
        process = python(LOOP, run)
        reported = int(process.stdout.readline())
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        reported = max([reported, *map(int, process.communicate()[0].split())])
        assert process.returncode == -signal.SIGKILL
        assert step_in(checkpoint.find_resume(run, "auto")) in (reported, reported + 1)


@pytest.mark.parametrize("kind", ["new", "old"])
def test_while_best_model_is_absent_readers_take_the_hidden_one_and_the_next_run_renames_it(tmp_path, kind, warnings):
    checkpoint.save(tmp_path / "best_model", tensors(1), {"progress": {"step": 1}})
    (tmp_path / "best_model").rename(tmp_path / f".best_model.{kind}")
    assert step_in(tmp_path / "best_model") == 1
    assert (checkpoint.read_tensors(tmp_path / "best_model" / "model.safetensors")["w"] == 1).all()
    assert "absent because a save was interrupted" in warnings.text
    assert names(tmp_path) == [f".best_model.{kind}"], "reading changes nothing"
    checkpoint.recover(tmp_path)
    assert names(tmp_path) == ["best_model"]


def test_what_is_not_ours_is_never_cleared_away(tmp_path):
    others = [".cache.gone", ".notes.new", ".notes.old"]
    for name in others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "diary.txt").write_text("mine")
    save(tmp_path, 1)
    assert names(tmp_path) == [*others, "latest", "step_0000001"]
    assert all((tmp_path / name / "diary.txt").exists() for name in others)


def test_everything_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, Path.rename

    def record_flush(handle):
        events.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def record_rename(self, target):
        events.append(f"{self.name} -> {target.name}")
        return rename(self, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see which file is flushed")
    monkeypatch.setattr(os, "fsync", record_flush)
    monkeypatch.setattr(Path, "rename", record_rename)
    save(tmp_path, 1)
    assert events == ["model.safetensors", "optimizer.safetensors", ".state.json.new", ".step_0000001.new",
                      ".step_0000001.new -> step_0000001", tmp_path.name]  # fmt: skip


# Damage


def truncate(folder):
    file = folder / "optimizer.safetensors"
    os.truncate(file, file.stat().st_size - 3)


def flip(folder):
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def change_state(folder):
    text = (folder / "state.json").read_text()
    (folder / "state.json").write_text(text.replace('"step": 2', '"step": 3'))


def replace_state(text):
    return lambda folder: (folder / "state.json").write_text(text)


DAMAGE = {
    "truncated": (truncate, r"optimizer\.safetensors has \d+ bytes instead of \d+"),
    "one bit": (flip, r"model\.safetensors: its SHA-256"),
    "missing file": (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors is missing"),
    "half a manifest": (lambda folder: os.truncate(folder / "state.json", 200), "state.json: not readable as JSON"),
    "a changed manifest": (change_state, "state.json: changed since it was written"),
    "a list for a manifest": (replace_state("[1]"), "state.json: not a checkpoint's manifest"),
    "a nested manifest": (replace_state("[" * 10**5), "state.json: not readable as JSON"),
    "an empty folder": (lambda folder: [p.unlink() for p in folder.iterdir()], "state.json is missing"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_newest_intact_one_is_used(tmp_path, case, warnings):
    damage, message = DAMAGE[case]
    save(tmp_path, 1, 2)
    damage(tmp_path / "step_0000002")
    assert checkpoint.find_resume(tmp_path, "auto").name == "step_0000001"
    assert "skipping" in warnings.text
    with pytest.raises(ValueError, match=f"not intact: {message}"):
        checkpoint.find_resume(tmp_path, str(tmp_path / "latest"))
    flip(tmp_path / "step_0000001")
    both = f"none of the 2 checkpoints(.|\n)*step_0000002: {message}(.|\n)*step_0000001: model"
    with pytest.raises(ValueError, match=both):
        checkpoint.find_resume(tmp_path, "auto")


def test_the_only_intact_checkpoint_is_never_dropped(tmp_path):
    save(tmp_path, 1, 2, 3)
    flip(tmp_path / "step_0000003")
    truncate(tmp_path / "step_0000002")
    checkpoint.drop_old(tmp_path, 2)
    assert "step_0000001" in names(tmp_path)
    assert checkpoint.find_resume(tmp_path, "auto").name == "step_0000001"
    save(tmp_path, 2)
    checkpoint.drop_old(tmp_path, 1)
    assert names(tmp_path) == ["latest", "step_0000002"]


def test_after_going_back_the_new_checkpoints_count_not_the_higher_steps(tmp_path):
    save(tmp_path, 4, 8, 12)
    save(tmp_path, 6)  # resumed with -r step_0000004, or a new run in an old folder
    checkpoint.drop_old(tmp_path, 2)
    assert names(tmp_path) == ["latest", "step_0000006", "step_0000012"]
    assert checkpoint.find_resume(tmp_path, "auto").name == "step_0000006"
    assert (tmp_path / "latest").resolve().name == "step_0000006"


def test_checkpoints_from_before_the_manifest_are_still_read(tmp_path):
    save(tmp_path, 1, 2)
    for folder in (tmp_path / "step_0000001", tmp_path / "step_0000002"):
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps({key: state[key] for key in ("progress", "digests")}))
    assert step_in(checkpoint.find_resume(tmp_path, "auto")) == 2
    flip(tmp_path / "step_0000002")
    assert step_in(checkpoint.find_resume(tmp_path, "auto")) == 1


# Full disks

ON_A_FULL_DISK = """
from test_checkpoint_faults import Path, checkpoint, names, save, step_in
run = Path(sys.argv[1]) / "run"
save(run, 1, size=300_000)
check, checkpoint.check_room = checkpoint.check_room, lambda *_: None   # another program took the room after the check
for check_room in (checkpoint.check_room, check):
    checkpoint.check_room = check_room
    try:
        save(run, 2, size=300_000)
    except OSError as error:
        print(error)
    print(names(run), step_in(checkpoint.find_resume(run, "auto")))
save(run, 2, size=100_000)
print(step_in(checkpoint.find_resume(run, "auto")))
"""


def test_a_disk_that_is_really_full_leaves_the_last_checkpoint(tmp_path):
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("needs Linux' unshare, to mount a small disk that nobody else sees")
    inside = f'mount -t tmpfs -o size=2m small {tmp_path} || exit 77; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside, "sh"]
    command += [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(HERE)!r})\n{ON_A_FULL_DISK}", tmp_path]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    failed, left, refused, left_again, smaller = done.stdout.splitlines()
    assert "run/step_0000002 could not be written: No space left on device. 1.2 MiB are needed" in failed
    assert "Still intact there: step_0000001. Free some room" in failed
    assert failed.endswith("then continue with -r auto")
    assert left == left_again == "['latest', 'step_0000001'] 1"
    assert "not enough room for a checkpoint, nothing was written" in refused
    assert smaller == "2"


LIMITED = """
import resource
from test_checkpoint_faults import Path, save
save(Path(sys.argv[1]), 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save(Path(sys.argv[1]), 2, size=300_000)
"""


def test_a_limit_on_file_sizes_is_named(tmp_path):
    message = python(LIMITED, tmp_path).communicate()[1]
    assert "File too large" in message
    assert "Raise the limit on file sizes (ulimit -f)" in message
    assert names(tmp_path) == ["latest", "step_0000001"]
    assert step_in(tmp_path / "latest") == 1


def test_room_is_checked_before_anything_is_written(tmp_path):
    checkpoint.check_room(tmp_path / "not" / "yet", 1000)
    with pytest.raises(OSError, match=r"not enough room.*Still intact there: nothing.*start again") as error:
        checkpoint.check_room(tmp_path / "not" / "yet", 1 << 60)
    assert error.value.errno == errno.ENOSPC


def test_a_killed_runs_leftover_does_not_count_as_used(tmp_path, monkeypatch):
    leftover = tmp_path / ".step_0000002.new"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage(p)._replace(free=0 if leftover.exists() else 9999))
    checkpoint.check_room(tmp_path, 9000)


def test_when_the_last_rename_fails_the_old_one_goes_back(tmp_path, monkeypatch):
    folder = tmp_path / "step_0000001"
    save(tmp_path, 1)
    rename = Path.rename

    def failing(self, target):
        if self.name.endswith(".new"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match=r"Input/output error.*Still intact there: step_0000001\. Fix the cause"):
        checkpoint.save(folder, tensors(2), {"progress": {"step": 2}})
    assert names(tmp_path) == ["latest", "step_0000001"]
    assert step_in(folder) == 1


def test_the_size_is_known_before_it_is_written(tmp_path):
    save(tmp_path, 1, size=50_000)
    real = sum(p.stat().st_size for p in (tmp_path / "latest").iterdir())
    assert real <= checkpoint.bytes_needed(tensors(1, 50_000)) <= real + (70 << 10)


def test_where_links_are_impossible_saving_and_resuming_still_work(tmp_path, monkeypatch, warnings):
    def no_links(*_args, **_kwargs):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    save(tmp_path, 1)
    assert "could not be pointed at step_0000001" in warnings.text
    assert checkpoint.find_resume(tmp_path, "auto").name == "step_0000001"


def test_others_of_the_team_may_read_what_was_saved(tmp_path):
    old = os.umask(0o022)
    try:
        save(tmp_path, 1)
    finally:
        os.umask(old)
    assert {oct(p.stat().st_mode & 0o777) for p in (tmp_path / "latest").iterdir()} == {"0o644"}
