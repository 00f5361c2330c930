"""Connects every process of a job to rank 0: a barrier without a time limit, and all end when one fails or dies.

A process that fails leaves the others waiting in their next all-reduce: NCCL waits for half an hour, gloo reports a
"TIMEOUT" without the reason. Here one that fails says so, and of one that is killed the system closes the connection.
Nothing is polled and nothing times out. Without Paddle.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import sys
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener

from ppmtl.predict.processes import Processes

_HERE, _BYE, _FAILED = b"here", b"bye", b"failed: "
_GRACE_SECONDS = 5.0  # for the main thread to end by itself, which frees the data workers' shared memory


class Watch:
    """The connections of this process, and a thread for each that listens to it; all processes have to build one.

    Args:
        host: address of rank 0, as the others see it.

    Attributes:
        failed: set once another process has failed and its message is printed.
    """

    def __init__(self, processes: Processes, host: str) -> None:
        self._processes = processes
        self.failed = threading.Event()
        self._lock, self._arrivals, self._over = threading.Lock(), threading.Semaphore(0), False
        self._peers = _accept_all(processes, host) if processes.rank == 0 else {0: _connect(processes)}
        # A forked data worker would hold the connection open after its process was killed
        for connection in self._peers.values():
            os.register_at_fork(after_in_child=connection.close)
        for rank in self._peers:
            threading.Thread(target=self._listen, args=(rank,), daemon=True).start()

    def barrier(self, message: bytes = _HERE) -> None:
        """Returns when all processes have called it, however long that takes; SystemExit if one of them failed."""
        if self._processes.rank > 0:
            self._send(message)
        for _ in self._peers:
            self._arrivals.acquire()
            if self.failed.is_set():
                self._arrivals.release()  # for the barrier in which a normal end waits for the others
                raise SystemExit(1)
        if self._processes.rank == 0:
            self._send(message)

    def close(self) -> None:
        """A last barrier; after it the others may end."""
        self.barrier(_BYE)

    def report(self, message: str) -> None:
        """Tells all others that this process failed; they end."""
        with self._lock:
            self._over = True
            self._send(_FAILED + message.encode())

    def _listen(self, rank: int) -> None:
        """Counts the arrivals of a peer; if the peer fails, passes that on, prints it and ends this process."""
        message = _HERE
        while message == _HERE:
            try:
                message = self._peers[rank].recv_bytes()
            except (EOFError, OSError):
                name = f"rank {rank} of {self._processes.count}"
                message = _FAILED + f"{name} ended without a word: killed, perhaps for lack of memory".encode()
            if message in (_HERE, _BYE):
                self._arrivals.release()
        with self._lock:  # only the first failure counts
            if message == _BYE or self._over:
                return
            self._over = True
            self._send(message)
            if multiprocessing.parent_process() is None:  # else the process that started this one prints it
                print(message.removeprefix(_FAILED).decode(), file=sys.stderr, flush=True)
        self.failed.set()
        self._arrivals.release()
        time.sleep(_GRACE_SECONDS)
        os._exit(1)  # the main thread hangs in an all-reduce, where nothing else reaches it

    def _send(self, message: bytes) -> None:
        for connection in self._peers.values():
            with contextlib.suppress(OSError):  # it has ended already
                connection.send_bytes(message)


def _accept_all(processes: Processes, host: str) -> dict[int, Connection]:
    key = secrets.token_bytes()  # so that nothing else on the network can end the job
    peers: dict[int, Connection] = {}
    with Listener((host, 0), backlog=processes.count, authkey=key) as listener:
        processes.all_gather((listener.address, key))
        while len(peers) < processes.count - 1:
            with contextlib.suppress(EOFError, OSError, AuthenticationError):  # a stranger
                connection = listener.accept()
                peers[int(connection.recv_bytes())] = connection
    return peers


def _connect(processes: Processes) -> Connection:
    address, key = processes.all_gather(None)[0]
    try:
        connection = Client(address, authkey=key)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot reach rank 0 at {address[0]}:{address[1]} ({error.strerror}); the machines of one job need to reach "
            "each other on any port above 1024, for this and for the gradients",
        ) from error
    connection.send_bytes(str(processes.rank).encode())
    return connection
