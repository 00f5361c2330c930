"""Loads the service from this machine and prints requests/s and latency, beside serving one picture at a time.

    python deploy/serving/load_test.py --model_dir output_inference/allinone_demo
    python deploy/serving/load_test.py --url http://127.0.0.1:8000 --clients 1 8      # one that runs already

Each client sends its next picture when it has the answer to the last one. The two services are loaded in turn, round by
round, so that whatever else the machine does falls on both; the clients' own work falls on it too.
"""

import argparse
import asyncio
import itertools
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ppmtl import flags
from ppmtl.data.images import find_images

HERE = Path(__file__).resolve().parent
ONE_AT_A_TIME = ["--max_batch", "1", "--workers", "1", "--max_delay_ms", "0"]


@dataclass
class Tally:
    """What the clients of one service saw."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    refused: int = 0

    def row(self) -> list[str]:
        """Returns requests/s, p50, p99 in milliseconds and how many were refused."""
        if not self.latencies:
            return ["0", "-", "-", str(self.refused)]
        p50, p99 = np.percentile(self.latencies, [50, 99]) * 1000
        return [f"{len(self.latencies) / self.seconds:.1f}", f"{p50:.0f}", f"{p99:.0f}", str(self.refused)]


async def load(
    url: str, pictures: Sequence[bytes], fields: dict[str, str], clients: int, seconds: float, tally: Tally
) -> None:
    """Lets ``clients`` send pictures for ``seconds`` and adds what they saw to ``tally``."""
    started = time.perf_counter()

    async def client(http: httpx.AsyncClient, first: int) -> None:
        for picture in itertools.cycle([*pictures[first:], *pictures[:first]]):
            sent = time.perf_counter()
            if sent - started >= seconds:
                return
            answer = await http.post("/v1/predict", files={"images": ("picture", picture)}, data=fields)
            if answer.status_code == 200:
                tally.latencies.append(time.perf_counter() - sent)
            else:
                tally.refused += 1

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        await asyncio.gather(*(client(http, number % len(pictures)) for number in range(clients)))
    tally.seconds += time.perf_counter() - started


@contextmanager
def service(arguments: Sequence[str]) -> Iterator[str]:
    """Starts serve.py on a free port and gives its address once it is ready; ends it afterwards.

    Raises:
        ValueError: if it ends by itself.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(HERE / "serve.py"), "--port", str(port), *arguments]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while not is_ready(url):
                if process.poll() is not None:
                    raise ValueError(f"the service ended with code {process.returncode}: {' '.join(command)}")
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def is_ready(url: str) -> bool:
    """Returns whether the service there takes pictures."""
    try:
        return httpx.get(url + "/readyz").status_code == 200
    except httpx.TransportError:
        return False


def counters(url: str) -> np.ndarray:
    """Returns what a service counted since its start: pictures run, runs, pictures answered, CPU seconds."""
    lines = httpx.get(url + "/metrics").text.splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in lines if "{" not in line and not line.startswith("#"))
    names = ("ppmtl_batch_size_sum", "ppmtl_batch_size_count", "ppmtl_images_total", "process_cpu_seconds_total")
    return np.array([float(numbers[name]) for name in names])


def measure(urls: dict[str, str], arguments: argparse.Namespace, pictures: Sequence[bytes]) -> None:
    """Loads each service with each number of clients, and prints a table."""
    fields = {"mask": arguments.mask} | ({"tasks": arguments.tasks} if arguments.tasks else {})
    print("| service | clients | requests/s | p50 ms | p99 ms | refused | pictures per run | CPU ms per picture |")
    print("|---|---|---|---|---|---|---|---|")
    for clients in arguments.clients:
        tallies = {name: Tally() for name in urls}
        before = {name: counters(url) for name, url in urls.items()}
        for round_number in range(arguments.rounds):
            order = list(urls) if round_number % 2 == 0 else list(urls)[::-1]
            for name in order:
                asyncio.run(load(urls[name], pictures, fields, clients, arguments.seconds, tallies[name]))
        for name, tally in tallies.items():
            run, runs, answered, cpu = counters(urls[name]) - before[name]
            own = f"{run / max(1, runs):.1f} | {1000 * cpu / max(1, answered):.0f}"
            print(f"| {name} | {clients} | {' | '.join(tally.row())} | {own} |", flush=True)


def main(argv: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model_dir", metavar="DIR", help="bundle; starts both services and ends them")
    which.add_argument("--url", help="a service that runs already")
    parser.add_argument("--image_dir", default=str(HERE / "page" / "examples"), metavar="DIR", help="pictures to send")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32], metavar="N", help="default: 1 8 32")
    parser.add_argument(
        "--seconds", type=float, default=10, metavar="S", help="per service, round and number of clients"
    )
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="default: 2")
    parser.add_argument("--tasks", metavar="seg,det", help="default: all")
    parser.add_argument("--mask", default="png", choices=["png", "rle", "none"], help="default: png")
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[], metavar="FLAG",
                        help="last: more flags for both services, e.g. --serve --cpu_threads 2")  # fmt: skip
    arguments = parser.parse_args(argv)
    pictures = [path.read_bytes() for path in find_images(Path(arguments.image_dir))]
    with ExitStack() as running:
        if arguments.url:
            urls = {"running": arguments.url.rstrip("/")}
        else:
            common = ["--model_dir", arguments.model_dir, *arguments.serve]
            urls = {
                "dynamic batching": running.enter_context(service(common)),
                "one at a time": running.enter_context(service([*common, *ONE_AT_A_TIME])),
            }
        measure(urls, arguments, pictures)
    return 0


if __name__ == "__main__":
    flags.run(main)
