"""Processes that want one file get it whole, whoever of them is killed."""

import multiprocessing
import time

from tests import server as server_lib
from tests import test_download

PROCESSES = 8


def wanted(url, path, queue):
    """Fetches the file; says whether what it then reads is whole."""
    test_download.fetch(url, path)
    queue.put(path.read_bytes() == test_download.CONTENT)


def test_killed_while_they_fetch_one_file(campaign, count, rng, tmp_path):
    context = multiprocessing.get_context("spawn")
    demanded = "the others read it whole; one file, verified, is left"
    with campaign("R13 killed in a fetch of eight", demanded) as row:
        row.seen |= {"killed_who_fetched": 0}
        for number in range(count(1, 20)):
            path = tmp_path / str(number) / "file.npz"
            path.parent.mkdir()
            queue = context.Queue()
            server = server_lib.Server(test_download.CONTENT, ["slow"] * 2)
            with server.running() as url:
                processes = [
                    context.Process(target=wanted, args=(url, path, queue))
                    for _ in range(PROCESSES)
                ]
                for process in processes:
                    process.start()
                wait_for_request(server)
                time.sleep(rng.uniform(0, 0.8 * server_lib.SLOW_SECONDS))
                victims = rng.choice(PROCESSES, PROCESSES // 2, replace=False)
                for victim in victims:
                    processes[victim].kill()
                results = [queue.get(timeout=60) for _ in range(PROCESSES // 2)]
                for process in processes:
                    process.join(60)
            # Whoever went on asked again.
            row.seen["killed_who_fetched"] += len(server.requests) > 1
            row.check(
                all(results)
                and test_download.left_in(path.parent) == test_download.WHOLE,
                f"{results}, {test_download.left_in(path.parent)}",
            )


def wait_for_request(server) -> None:
    end = time.monotonic() + 60
    while not server.requests:
        assert time.monotonic() < end, "nobody asked"
        time.sleep(0.005)
