"""Ends every process of a job within seconds when one of them fails, saying which and why. Without Paddle.

A process that fails leaves the others waiting in their next all-reduce: NCCL waits for half an hour, gloo reports a
"TIMEOUT" without the reason. So each process keeps a connection to the first one and a thread that reads it. One that
fails says so; one that is killed cannot, but the system closes its connection. Nothing is polled and nothing times out:
a process may compute or read for as long as it likes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener

from ppmtl.engine.processes import Processes

_BYE = b"bye"
_GRACE_SECONDS = 5.0  # for the main thread to end by itself; one that waits in an all-reduce does not


class Watch:
    """The thread of this process that learns of the end of the others.

    Args:
        processes: of the job. All of them have to build their watch.
        host: address of the first one, as the others see it.
    """

    def __init__(self, processes: Processes, host: str) -> None:
        self._processes = processes
        self._peers: dict[int, Connection] = {}
        self._lock, self._heard = threading.Lock(), threading.Event()
        self._left = False
        if processes.rank == 0:
            key = secrets.token_bytes()  # so that nothing else on the network can end the job
            listener = Listener((host, 0), backlog=processes.count, authkey=key)
            processes.exchange((listener.address, key))
            _in_background(self._accept, listener)
        else:
            address, key = processes.exchange(None)[0]
            self._peers[0] = _connect(address, key)
            self._peers[0].send(processes.rank)
            _in_background(self._listen, 0)
        # A forked data worker would hold the connection open after its process was killed
        os.register_at_fork(after_in_child=self._close)

    def heard_of_a_failure(self, wait_seconds: float) -> bool:
        """Returns whether another process failed, as far as that is known then; its message has been printed."""
        return self._heard.wait(wait_seconds)

    def report(self, message: str) -> None:
        """Tells all others that this process failed; they end."""
        self._left = True
        self._send(message.encode())

    def leave(self) -> None:
        """Tells all others that this process ends as it should."""
        self._left = True
        self._send(_BYE)

    def _accept(self, listener: Listener) -> None:
        for _ in range(self._processes.count - 1):
            connection = listener.accept()
            peer = connection.recv()
            self._peers[peer] = connection
            _in_background(self._listen, peer)

    def _listen(self, peer: int) -> None:
        """Waits for the end of a peer; if it is a failure, passes it on, prints it and ends this process."""
        try:
            told = self._peers[peer].recv_bytes()
        except (EOFError, OSError):
            told = f"{self._processes.name(peer)} ended without a word: killed, perhaps for lack of memory".encode()
        if told == _BYE:
            return
        with self._lock:
            if self._left or self._heard.is_set():
                return
            self._send(told)  # the first process passes it on
            if multiprocessing.parent_process() is None:  # else the process that started this one prints it
                print(told.decode(), file=sys.stderr, flush=True)
            self._heard.set()
        time.sleep(_GRACE_SECONDS)
        os._exit(1)

    def _send(self, message: bytes) -> None:
        for connection in list(self._peers.values()):
            with contextlib.suppress(OSError):  # it has ended already
                connection.send_bytes(message)

    def _close(self) -> None:
        for connection in self._peers.values():
            connection.close()


def _connect(address: tuple[str, int], key: bytes) -> Connection:
    try:
        return Client(address, authkey=key)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot reach rank 0 at {address[0]}:{address[1]} ({error.strerror}); the machines of one job need to reach "
            "each other on any port above 1024, for this and for the gradients",
        ) from error


def _in_background(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()
