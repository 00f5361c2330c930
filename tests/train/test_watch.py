"""Processes that learn of each other's end: plain ones without Paddle, so that each costs a tenth of a second."""

import subprocess
import sys
import time

import pytest

PEER = """
import os, pickle, sys, time
sys.path.insert(0, {root!r})
from ppmtl.predict.processes import Processes
from ppmtl.train import watch as module
module._GRACE_SECONDS = 1.0

rank, folder, behaviour = int(sys.argv[1]), sys.argv[2], sys.argv[3]
number = 0

def exchange(value):
    global number
    number += 1
    names = [f"{{folder}}/{{number}}_{{r}}" for r in range(3)]
    with open(names[rank] + ".tmp", "wb") as file:
        pickle.dump(value, file)
    os.rename(names[rank] + ".tmp", names[rank])
    while not all(map(os.path.exists, names)):
        time.sleep(0.01)
    return [pickle.load(open(name, "rb")) for name in names]

watch = module.Watch(Processes(rank, 3, exchange), "127.0.0.1")
time.sleep(0.3)
if behaviour == "fails":
    watch.report(f"rank {{rank}} of 3: 7.png: cannot be decoded")
    sys.exit(1)
if behaviour == "dies":
    if os.fork() == 0:
        time.sleep(30)  # as a data worker that has not noticed yet
    os.kill(os.getpid(), 9)
if behaviour.startswith("leaves"):
    time.sleep(1.5 * (behaviour == "leaves late"))
    watch.leave()
    sys.exit(0)
if behaviour.startswith("meets"):
    for meeting in range(200):
        if behaviour == "meets late" and meeting == 100:
            time.sleep(1.5)
            print("late", time.time(), flush=True)
        if behaviour == "meets and fails" and meeting == 150:
            watch.report(f"rank {{rank}} of 3: 7.png: cannot be decoded")
            sys.exit(1)
        try:
            watch.meet()
        except ConnectionError:
            print("alone", meeting, flush=True)
            sys.exit(1)
        if meeting == 100:
            print("met", time.time(), flush=True)
    watch.leave()
    sys.exit(0)
if behaviour == "follows":
    print("heard", watch.heard_of_a_failure(20), flush=True)
time.sleep(30)  # as in an all-reduce
"""


def job(tmp_path, *behaviours):
    """Returns {rank: (exit code, stdout, stderr)} and the seconds until the last one ended, 8 at most."""
    from pathlib import Path

    code = PEER.format(root=str(Path(__file__).resolve().parents[2]))
    command = [sys.executable, "-c", code]
    started = time.monotonic()
    peers = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path), behaviour], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank, behaviour in enumerate(behaviours)
    ]
    results = []
    for peer, behaviour in zip(peers, behaviours, strict=True):
        out, err = ("", "") if behaviour == "dies" else peer.communicate(timeout=25)
        results.append((peer.wait(25), out, err))
    return results, time.monotonic() - started


@pytest.mark.parametrize("failing", [0, 2])
def test_a_failure_ends_all_others_with_its_message_though_they_hang(tmp_path, failing):
    behaviours = ["follows" if rank == 1 else "hangs" for rank in range(3)]
    behaviours[failing] = "fails"
    results, seconds = job(tmp_path, *behaviours)
    assert [code for code, _, _ in results] == [1, 1, 1]
    for rank, (_, _, err) in enumerate(results):
        assert err == ("" if rank == failing else f"rank {failing} of 3: 7.png: cannot be decoded\n")
    assert results[1][1] == "heard True\n"
    assert seconds < 20


@pytest.mark.parametrize("dying", [0, 1])
def test_a_death_is_noticed_at_once_even_if_a_forked_worker_lives_on(tmp_path, dying):
    behaviours = ["hangs"] * 3
    behaviours[dying] = "dies"
    results, seconds = job(tmp_path, *behaviours)
    assert [code for code, _, _ in results] == [-9 if rank == dying else 1 for rank in range(3)]
    assert results[2][2] == f"rank {dying} of 3 ended without a word: killed, perhaps for lack of memory\n"
    assert seconds < 20


def test_an_orderly_end_ends_nobody_else(tmp_path):
    results, _ = job(tmp_path, "leaves", "leaves late", "leaves")
    assert results == [(0, "", "")] * 3


@pytest.mark.parametrize("late", [0, 1])
def test_processes_wait_for_each_other_however_late_one_is(tmp_path, late):
    behaviours = ["meets"] * 3
    behaviours[late] = "meets late"
    results, _ = job(tmp_path, *behaviours)
    assert [code for code, _, _ in results] == [0, 0, 0]
    came = float(results[late][1].split()[1])
    assert all(float(out.split()[-1]) >= came for _, out, _ in results)


@pytest.mark.parametrize("failing", [0, 2])
def test_nobody_waits_for_one_that_failed(tmp_path, failing):
    behaviours = ["meets"] * 3
    behaviours[failing] = "meets and fails"
    results, _ = job(tmp_path, *behaviours)
    assert [code for code, _, _ in results] == [1, 1, 1]
    for rank in {0, 1, 2} - {failing}:
        assert results[rank][1].splitlines()[-1] == "alone 150"
        assert results[rank][2] == f"rank {failing} of 3: 7.png: cannot be decoded\n"
