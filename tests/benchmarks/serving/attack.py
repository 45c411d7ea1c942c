"""Callers without a token that hold connections, send headers without end and guess tokens, in their own process."""

import asyncio
import os
import random
import sys
from urllib.parse import urlsplit

HALF_OPEN = 200
"""Connections that send nothing, or the beginning of a header; to HTTP, and as many to Flight."""
ENDLESS = 4
"""Connections that send one header, or one URL, without end."""
NICENESS = 10
"""Callers elsewhere would take no time of the server's cores; here they take it last."""


async def attack(http: str, flight: str, guesses: int) -> None:
    """Attack two addresses until the process is ended; `guesses` requests per second have a wrong token."""
    starts = [b"", b"GET / HT"]
    await asyncio.gather(
        *(_hold(http, starts[i % 2]) for i in range(HALF_OPEN)),
        *(_hold(flight, b"") for _ in range(HALF_OPEN)),
        *(_send_without_end(http, [b"GET / HTTP/1.1\r\na: ", b"GET /"][i % 2]) for i in range(ENDLESS)),
        _guess(http, guesses),
    )


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection, however often that fails."""
    url = urlsplit(address)
    while True:
        try:
            return await asyncio.open_connection(url.hostname, url.port)
        except OSError:
            await asyncio.sleep(0.1)


async def _hold(address: str, start: bytes) -> None:
    """Hold a connection; open another one as soon as the server closes it."""
    while True:
        await asyncio.sleep(random.random())
        reader, writer = await _connect(address)
        try:
            writer.write(start)
            while await reader.read(1_000):
                pass
        except OSError:
            pass
        writer.close()


async def _send_without_end(address: str, start: bytes) -> None:
    while True:
        await asyncio.sleep(0.1)
        _, writer = await _connect(address)
        try:
            writer.write(start)
            while True:
                writer.write(b"a" * 65_536)
                await writer.drain()
        except OSError:
            pass
        writer.close()


async def _guess(address: str, per_second: int) -> None:
    request = b"GET /v1/services HTTP/1.1\r\nhost: here\r\nauthorization: Bearer %d\r\n\r\n"
    reader, writer = await _connect(address)
    loop = asyncio.get_running_loop()
    start, sent = loop.time(), 0
    while True:
        await asyncio.sleep(0.01)
        while sent < (loop.time() - start) * per_second:
            try:
                writer.write(request % random.getrandbits(64))
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 401 "), head
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError):
                reader, writer = await _connect(address)
            sent += 1


if __name__ == "__main__":
    os.nice(NICENESS)
    print("attacking", flush=True)
    asyncio.run(attack(sys.argv[1], sys.argv[2], int(sys.argv[3])))
