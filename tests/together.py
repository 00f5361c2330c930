"""Several processes of one job, as threads: what is sharded over them is tested without starting any."""

import threading
from concurrent.futures import ThreadPoolExecutor

from ppmtl.predict.processes import Processes


def together(count, work):
    """Returns [work(processes)] of ``count`` threads that exchange values as processes do; if one fails, all do."""
    barrier, table = threading.Barrier(count, timeout=20), [None] * count

    def exchange_for(rank):
        def exchange(value):
            table[rank] = value
            barrier.wait()
            values = list(table)
            barrier.wait()
            return values

        return exchange

    def run(rank):
        try:
            return work(Processes(rank, count, exchange_for(rank)))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
