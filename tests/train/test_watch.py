"""Processes that learn of each other's end: plain ones without Paddle, so that each costs a tenth of a second."""

import subprocess
import sys
from pathlib import Path

import pytest

PEER = """
import os, pickle, sys, time
sys.path.insert(0, sys.argv[1])
from ppmtl.predict.processes import Processes
from ppmtl.train import watch as module

rank, folder, behaviour = int(sys.argv[2]), sys.argv[3], sys.argv[4]
failure = f"rank {rank} of 3: 7.png: cannot be decoded"

def all_gather(value):
    names = [f"{folder}/{r}" for r in range(3)]
    with open(names[rank] + ".tmp", "wb") as file:
        pickle.dump(value, file)
    os.rename(names[rank] + ".tmp", names[rank])
    while not all(map(os.path.exists, names)):
        time.sleep(0.01)
    return [pickle.load(open(name, "rb")) for name in names]

module._GRACE_SECONDS = 1.0
watch = module.Watch(Processes(rank, 3, all_gather), "127.0.0.1")
if behaviour == "fails":
    watch.report(failure)
    sys.exit(1)
if behaviour == "dies":
    if os.fork() == 0:
        time.sleep(30)  # as a data worker that has not noticed yet
    os.kill(os.getpid(), 9)
if behaviour == "hangs":
    time.sleep(30)  # as in an all-reduce
for step in range(200):
    if behaviour == "late" and step == 100:
        time.sleep(1.5)
        print("late", time.time(), flush=True)
    if behaviour == "fails later" and step == 150:
        watch.report(failure)
        sys.exit(1)
    try:
        watch.barrier()
    except SystemExit:
        try:
            watch.close()  # as on every way out
        finally:
            print("unwinds", flush=True)
    if step == 100:
        print("met", time.time(), flush=True)
if behaviour == "late":
    time.sleep(0.5)
watch.close()
"""
FAILURE = "rank {} of 3: 7.png: cannot be decoded\n"


def job(tmp_path, *behaviours):
    """Returns the exit code, stdout and stderr of each process; none may take longer than 20 s."""
    root = str(Path(__file__).resolve().parents[2])
    peers = [
        subprocess.Popen([sys.executable, "-c", PEER, root, str(rank), str(tmp_path), behaviour],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank, behaviour in enumerate(behaviours)
    ]  # fmt: skip
    results = []
    for peer, behaviour in zip(peers, behaviours, strict=True):
        out, err = ("", "") if behaviour == "dies" else peer.communicate(timeout=20)  # its child holds the pipes
        results.append((peer.wait(20), out, err))
    return results


@pytest.mark.parametrize("failing", [0, 2])
@pytest.mark.parametrize(("how", "others"), [("fails", "hangs"), ("fails later", "waits")])
def test_a_failure_ends_all_others_with_its_message_though_they_hang_or_wait(tmp_path, failing, how, others):
    behaviours = [how if rank == failing else others for rank in range(3)]
    results = job(tmp_path, *behaviours)
    assert [code for code, _, _ in results] == [1, 1, 1]
    assert [err for _, _, err in results] == ["" if r == failing else FAILURE.format(failing) for r in range(3)]
    assert all(
        out.endswith("unwinds\n") == (others == "waits") for r, (_, out, _) in enumerate(results) if r != failing
    )


@pytest.mark.parametrize("dying", [0, 1])
def test_a_death_is_noticed_at_once_even_if_a_forked_worker_lives_on(tmp_path, dying):
    results = job(tmp_path, *["dies" if rank == dying else "hangs" for rank in range(3)])
    assert [code for code, _, _ in results] == [-9 if rank == dying else 1 for rank in range(3)]
    assert results[2][2] == f"rank {dying} of 3 ended without a word: killed, perhaps for lack of memory\n"


@pytest.mark.parametrize("late", [0, 1])
def test_a_barrier_waits_however_late_one_is_and_an_orderly_end_ends_nobody_else(tmp_path, late):
    results = job(tmp_path, *["late" if rank == late else "in time" for rank in range(3)])
    assert [(code, err) for code, _, err in results] == [(0, "")] * 3
    came = float(results[late][1].split()[1])
    assert all(float(out.split()[-1]) >= came for _, out, _ in results)
