"""Requests a second, latencies and memory of `greysheep serve`, for known users and for new people.

    python benchmarks/service.py MODEL_DIR -o build/service.json

Peak: clients that ask again as soon as they are answered. Half: requests that begin at half the peak rate,
whether earlier ones are answered or not; their latency counts from when they should have begun. Memory: that
of the service before and after many requests. Clients and service share the machine: run it on a quiet one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess  # nosec B404
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import greysheep as gs


class Client:
    """One connection that is kept open; as little HTTP as will do, so that a client costs next to nothing."""

    def __init__(self, port: int):
        self.port = port

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def ask(self, request: bytes) -> None:
        """Send a request and read its reply, which must be a good one."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await self.reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head!r} {body[:200]!r}")


def http(path: str, body: dict[str, Any] | None = None) -> bytes:
    """A request as bytes."""
    content = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n"
    return (head + "Content-Type: application/json\r\n\r\n").encode() + content


def requests_of(model: Any, kind: str, n: int) -> list[bytes]:
    """Requests for lists of 20: of random known users, or of new people with 20 random items."""
    draw = random.Random(0)  # nosec B311
    if kind == "known":
        users = [draw.choice(model.log.user_ids) for _ in range(n)]
        return [http(f"/v1/users/{user}/recommendations?k=20") for user in users]
    items = model.log.item_ids.to_list()
    histories = [{"items": draw.sample(items, min(20, len(items)))} for _ in range(n)]
    return [http("/v1/recommendations", {"histories": [history], "k": 20}) for history in histories]


async def peak(port: int, requests: list[bytes], clients: int, seconds: float) -> tuple[float, list[float]]:
    """Requests a second and latencies of clients that ask without a pause."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def work(number: int) -> None:
        async with Client(port) as client:
            for request in cycle(requests[number::clients]):
                begun = time.perf_counter()
                if begun > end:
                    return
                await client.ask(request)
                latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*map(work, range(clients)))
    return len(latencies) / (time.perf_counter() - begun), latencies


async def at_rate(port: int, requests: list[bytes], rate: float, seconds: float) -> list[float]:
    """Latencies of requests that should begin at a steady rate, waiting for a connection included."""
    latencies: list[float] = []
    idle: asyncio.Queue[Client] = asyncio.Queue()
    crew = [Client(port) for _ in range(64)]
    for client in crew:
        idle.put_nowait(await client.__aenter__())

    async def one(request: bytes, due: float) -> None:
        client = await idle.get()
        await client.ask(request)
        latencies.append(time.perf_counter() - due)
        idle.put_nowait(client)

    begun, running = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.append(asyncio.create_task(one(requests[number % len(requests)], due)))
    await asyncio.gather(*running)
    for client in crew:
        await client.__aexit__()
    return latencies


async def many(port: int, requests: list[bytes], clients: int, n: int) -> None:
    """Send n requests."""

    async def work(number: int) -> None:
        async with Client(port) as client:
            for place in range(number, n, clients):
                await client.ask(requests[place % len(requests)])

    await asyncio.gather(*map(work, range(clients)))


@contextmanager
def serving(folder: Path, workers: int) -> Iterator[tuple[psutil.Process, int]]:
    """The process of a service, and its port."""
    command = [
        sys.executable,
        "-m",
        "greysheep",
        "serve",
        str(folder),
        "--port",
        "0",
        "--workers",
        str(workers),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # nosec B603
        assert process.stdout is not None
        said = process.stdout.readline()
        try:
            yield psutil.Process(process.pid), int(said.rpartition(":")[2])
        finally:
            process.terminate()


def measured(latencies: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    low, middle, high = np.percentile(latencies, [50, 99, 99.9]) * 1000
    return {"n": len(latencies), "p50_ms": low, "p99_ms": middle, "p99.9_ms": high}


def cpu_seconds(process: psutil.Process) -> float:
    """Seconds of a core that a service and its workers have used: they count even on a busy machine."""
    crew = (process, *process.children(recursive=True))
    return float(sum(sum(one.cpu_times()[:2]) for one in crew))


def own_memory(process: psutil.Process) -> int:
    """Bytes of memory that a service and its workers have for themselves."""
    return int(sum(one.memory_full_info().uss for one in (process, *process.children(recursive=True))))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--memory-requests", type=int, default=100_000)
    given = parser.parse_args()
    model = gs.load(given.model)
    facts: dict[str, Any] = {"model": model.label, "cores": os.cpu_count(), **vars(given)}
    facts |= {"model_dir": str(given.model), "index": (given.model / "index.json").is_file()}
    with serving(given.model, given.workers) as (process, port):
        for kind in ("known", "unseen"):
            requests = requests_of(model, kind, 5000)
            asyncio.run(many(port, requests, given.clients, 500))  # warm
            before = cpu_seconds(process)
            rate, latencies = asyncio.run(peak(port, requests, given.clients, given.seconds))
            cpu_ms = (cpu_seconds(process) - before) / len(latencies) * 1000
            half = asyncio.run(at_rate(port, requests, rate / 2, given.seconds))
            facts[kind] = {
                "per_second": rate,
                "cpu_ms": cpu_ms,
                "peak": measured(latencies),
                "half": measured(half),
            }
            print(kind, json.dumps(facts[kind]), flush=True)
        both = (requests_of(model, kind, 2500) for kind in ("known", "unseen"))
        mixed = list(chain.from_iterable(zip(*both, strict=True)))
        asyncio.run(many(port, mixed, given.clients, len(mixed)))
        before = own_memory(process)
        asyncio.run(many(port, mixed, given.clients, given.memory_requests))
        after = own_memory(process)
        facts["memory"] = {"before": before, "after": after, "growth": after / before - 1}
        print("memory", json.dumps(facts["memory"]))
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(facts, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
