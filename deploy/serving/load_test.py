"""Loads the service from this machine and prints requests/s and latency, beside serving one image at a time.

    python deploy/serving/load_test.py --model_dir output_inference/allinone_demo
    python deploy/serving/load_test.py --url http://127.0.0.1:8000 --clients 1 8      # one that runs already

Each client sends its next image when it has the answer to the last one. The two services are loaded in turn, round by
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
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ppmtl import cli, tables
from ppmtl.data.images import find_images

HERE = Path(__file__).resolve().parent
ONE_AT_A_TIME = ["--max_batch", "1", "--workers", "1", "--max_delay_ms", "0"]
HEADS = ["service", "clients", "requests/s", "p50 ms", "p99 ms", "refused", "images per run", "CPU ms per picture"]


async def load(url: str, images: Sequence[bytes], fields: dict[str, str], clients: int, seconds: float) -> list[float]:
    """Lets ``clients`` send images for ``seconds``; returns the seconds of each answer, NaN for one that was refused."""
    started, latencies = time.perf_counter(), []

    async def client(http: httpx.AsyncClient, first: int) -> None:
        for image in itertools.cycle([*images[first:], *images[:first]]):
            sent = time.perf_counter()
            if sent - started >= seconds:
                return
            answer = await http.post("/v1/predict", files={"images": ("image", image)}, data=fields)
            latencies.append(time.perf_counter() - sent if answer.status_code == 200 else np.nan)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
        await asyncio.gather(*(client(http, number % len(images)) for number in range(clients)))
    return latencies


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
            while process.poll() is None:
                with suppress(httpx.TransportError):
                    if httpx.get(url + "/readyz").status_code == 200:
                        yield url
                        return
                time.sleep(0.2)
            raise ValueError(f"the service ended with code {process.returncode}: {' '.join(command)}")
        finally:
            process.terminate()


def counters(url: str) -> np.ndarray:
    """What a service counted since its start: images run, runs, images answered, CPU seconds."""
    lines = httpx.get(url + "/metrics").text.splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in lines if "{" not in line and not line.startswith("#"))
    names = ("ppmtl_batch_size_sum", "ppmtl_batch_size_count", "ppmtl_images_total", "process_cpu_seconds_total")
    return np.array([float(numbers[name]) for name in names])


def measure(
    urls: dict[str, str], arguments: argparse.Namespace, images: Sequence[bytes], clients: int
) -> list[list[str]]:
    """Loads each service with ``clients`` in turn; one row of the table per service."""
    fields = {"mask": arguments.mask} | ({"tasks": arguments.tasks} if arguments.tasks else {})
    latencies: dict[str, list[float]] = {name: [] for name in urls}
    seconds, before = dict.fromkeys(urls, 0.0), {name: counters(url) for name, url in urls.items()}
    for number in range(arguments.rounds):
        for name in list(urls)[:: 1 if number % 2 == 0 else -1]:
            started = time.perf_counter()
            latencies[name] += asyncio.run(load(urls[name], images, fields, clients, arguments.seconds))
            seconds[name] += time.perf_counter() - started
    rows = []
    for name, url in urls.items():
        run, runs, answered, cpu = counters(url) - before[name]
        good = np.array(latencies[name])[~np.isnan(latencies[name])]
        p50, p99 = (f"{ms:.0f}" for ms in np.percentile(good, [50, 99]) * 1000) if len(good) else "--"
        row = [name, clients, f"{len(good) / seconds[name]:.1f}", p50, p99, len(latencies[name]) - len(good)]
        rows.append([*map(str, row), f"{run / max(1, runs):.1f}", f"{1000 * cpu / max(1, answered):.0f}"])
    return rows


def main(argv: Sequence[str]) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which, add = parser.add_mutually_exclusive_group(required=True), parser.add_argument
    which.add_argument("--model_dir", metavar="DIR", help="bundle; starts both services and ends them")
    which.add_argument("--url", help="a service that runs already")
    add("--image_dir", default=str(HERE / "page" / "examples"), metavar="DIR", help="images to send")
    add("--clients", nargs="+", type=int, default=[1, 8, 32], metavar="N", help="default: 1 8 32")
    add("--seconds", type=float, default=10, metavar="S", help="per service, round and number of clients")
    add("--rounds", type=int, default=2, metavar="N", help="default: 2")
    add("--tasks", metavar="seg,det", help="default: all")
    add("--mask", default="png", choices=["png", "rle", "none"], help="default: png")
    add("--serve", nargs=argparse.REMAINDER, default=[], metavar="FLAG",
        help="last: more flags for both services, e.g. --serve --cpu_threads 2")  # fmt: skip
    arguments = parser.parse_args(argv)
    images = [path.read_bytes() for path in find_images(Path(arguments.image_dir))]
    with ExitStack() as running:
        urls = {"running": (arguments.url or "").rstrip("/")}
        if arguments.model_dir:
            common = ["--model_dir", arguments.model_dir, *arguments.serve]
            services = {"dynamic batching": common, "one at a time": [*common, *ONE_AT_A_TIME]}
            urls = {name: running.enter_context(service(more)) for name, more in services.items()}
        rows = [row for clients in arguments.clients for row in measure(urls, arguments, images, clients)]
    print(tables.markdown(HEADS, rows))
    return 0


if __name__ == "__main__":
    cli.run(main)
