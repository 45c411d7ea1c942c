"""Time of a search page with several browsers at once, and of rankers' requests beside them.

    consume serve --pages --towers demo/towers
    python -m tests.benchmarks.pages --url http://127.0.0.1:8080

Clients are threads of this process, which need processor time too. The rankers' requests ask the service `ranking` for
200 products over HTTP, alone and while the browsers search: first alone, then beside, ROUNDS times in turn.
"""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import httpx
import numpy as np
import typer

COLOURS = ("粉色", "红色", "天蓝", "绿色", "黄色", "灰色")
PATTERNS = ("条纹", "波点", "格子", "碎花")
KINDS = ("连衣裙", "积木", "睡袋", "童鞋", "水杯")
ROUNDS = 3


def main(
    url: Annotated[str, typer.Option(help="Address of the service.")] = "http://127.0.0.1:8080",
    clients: Annotated[int, typer.Option(min=1, help="Browsers at the same time.")] = 4,
    searches: Annotated[int, typer.Option(min=1, help="Pages of each browser and round.")] = 30,
) -> None:
    """Print medians and 95th percentiles in milliseconds."""
    sentences = [" ".join(words) for words in itertools.product(COLOURS, PATTERNS, KINDS)]
    pages: list[float] = []
    alone: list[float] = []
    beside: list[float] = []
    for turn in range(ROUNDS):
        alone += rank(url, threading.Event(), limit=100)
        stop = threading.Event()
        with ThreadPoolExecutor(clients + 1) as pool:
            ranker = pool.submit(rank, url, stop, limit=100_000)
            browsers = [
                pool.submit(browse, url, sentences[(turn * clients + n) % len(sentences) :: 7], searches)
                for n in range(clients)
            ]
            for one in browsers:
                pages += one.result()
            stop.set()
            beside += ranker.result()
    for name, seconds in (("search page", pages), ("ranking alone", alone), ("ranking beside", beside)):
        median, high = np.percentile(np.array(seconds) * 1e3, (50, 95))
        print(f"{name}: p50 {median:.0f} ms, p95 {high:.0f} ms, {len(seconds)} requests")


def browse(url: str, sentences: list[str], count: int) -> list[float]:
    """Return the seconds of some search pages, one after the other."""
    seconds = []
    with httpx.Client(base_url=url, timeout=60) as client:
        for number in range(count):
            fields = {"q": sentences[number % len(sentences)], "collapse": "1" if number % 2 else ""}
            started = time.perf_counter()
            client.get("/search", params=fields).raise_for_status()
            seconds.append(time.perf_counter() - started)
    return seconds


def rank(url: str, stop: threading.Event, *, limit: int) -> list[float]:
    """Return the seconds of rankers' requests, one after the other, until `stop` or `limit`."""
    body = {"service": "ranking", "user_id": "u00001", "product_ids": [f"p{n:05}" for n in range(1, 201)]}
    seconds: list[float] = []
    with httpx.Client(base_url=url, timeout=60) as client:
        while not stop.is_set() and len(seconds) < limit:
            started = time.perf_counter()
            headers = {"accept": "application/vnd.apache.arrow.stream"}
            client.post("/v1/features", json=body, headers=headers).raise_for_status()
            seconds.append(time.perf_counter() - started)
            time.sleep(0.02)
    return seconds


if __name__ == "__main__":
    typer.run(main)
