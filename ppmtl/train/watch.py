"""A line between the processes of a job: all end within seconds when one fails, and they can wait for each other.

A process that fails leaves the others waiting in their next all-reduce: NCCL waits for half an hour, gloo reports a
"TIMEOUT" without the reason. So each process keeps a connection to the first one and a thread that reads it. One that
fails says so; one that is killed cannot, but the system closes its connection. Nothing is polled and nothing times out:
a process may compute or read for as long as it likes. Without Paddle.
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
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener

from ppmtl.predict.processes import Processes

_BYE, _HERE, _FAILED = b"bye", b"here", b"failed: "
_GRACE_SECONDS = 5.0  # for the main thread to end by itself; one that waits in an all-reduce does not


class Watch:
    """This process's line to the others, and the thread that listens to it.

    Args:
        processes: of the job. All of them have to build their watch.
        host: address of the first one, as the others see it.
    """

    def __init__(self, processes: Processes, host: str) -> None:
        self._processes = processes
        self._peers: dict[int, Connection] = {}
        self._lock, self._sending, self._heard = threading.Lock(), threading.Lock(), threading.Event()
        self._arrivals = threading.Semaphore(0)
        self._left = False
        if processes.rank == 0:
            key = secrets.token_bytes()  # so that nothing else on the network can end the job
            listener = Listener((host, 0), backlog=processes.count, authkey=key)
            processes.exchange((listener.address, key))
            _in_background(self._accept, listener)
        else:
            address, key = processes.exchange(None)[0]
            self._peers[0] = _connect(address, key)
            self._peers[0].send_bytes(str(processes.rank).encode())
            _in_background(self._listen, 0)
        # A forked data worker would hold the connection open after its process was killed
        os.register_at_fork(after_in_child=self._close)

    def heard_of_a_failure(self, wait_seconds: float) -> bool:
        """Returns whether another process failed, as far as that is known then; its message has been printed."""
        return self._heard.wait(wait_seconds)

    def meet(self) -> None:
        """Returns when all processes have called it, however long that takes.

        Raises:
            ConnectionError: one of them failed; its message has been printed.
        """
        first = self._processes.rank == 0
        if not first:
            self._send(_HERE)
        for _ in range(self._processes.count - 1 if first else 1):
            self._arrivals.acquire()
            if self._heard.is_set():
                raise ConnectionError("another process of the job failed")
        if first:
            self._send(_HERE)

    def report(self, message: str) -> None:
        """Tells all others that this process failed; they end."""
        self._left = True
        self._send(_FAILED + message.encode())

    def leave(self) -> None:
        """Tells all others that this process ends as it should."""
        self._left = True
        self._send(_BYE)

    def _accept(self, listener: Listener) -> None:
        while True:
            try:
                connection = listener.accept()
                peer = int(connection.recv_bytes())
            except (EOFError, OSError, AuthenticationError):
                continue  # a stranger, or a peer that died before it had said who it was
            self._peers[peer] = connection
            _in_background(self._listen, peer)

    def _listen(self, peer: int) -> None:
        """Reads what a peer says until it ends; if it fails, passes that on, prints it and ends this process."""
        try:
            while (told := self._peers[peer].recv_bytes()) == _HERE:
                self._arrivals.release()
        except (EOFError, OSError):
            why = f"{self._processes.name(peer)} ended without a word: killed, perhaps for lack of memory"
            told = _FAILED + why.encode()
        if told == _BYE:
            return
        with self._lock:
            if self._left or self._heard.is_set():
                return
            self._send(told)  # the first process passes it on
            if multiprocessing.parent_process() is None:  # else the process that started this one prints it
                print(told.removeprefix(_FAILED).decode(), file=sys.stderr, flush=True)
            self._heard.set()
            self._arrivals.release(self._processes.count)  # whoever waits for the others learns that they do not come
        time.sleep(_GRACE_SECONDS)
        os._exit(1)

    def _send(self, message: bytes) -> None:
        for connection in list(self._peers.values()):
            with contextlib.suppress(OSError), self._sending:  # OSError: it has ended already
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
