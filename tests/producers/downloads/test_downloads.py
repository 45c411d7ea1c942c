"""`produce images --download`, against real HTTP servers on the loopback network."""

import ipaddress
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from feature_repo.config import Settings
from feature_repo.content_hash import content_hash
from feature_repo.errors import ConflictError
from feature_repo.images import image_store
from feature_repo.images.decoding import open_image
from producers import cli
from producers.catalogue.ingest import ingest_products
from producers.catalogue.pack import pack_images
from producers.downloads import addresses, download_log, fetch, run
from producers.downloads.download_log import KnownUrl
from producers.downloads.fetch import FetchLimits
from producers.downloads.run import DownloadOptions, DownloadSummary, download_images
from tests.producers.catalogue.shop import NOW, read_catalogue, write_products
from tests.producers.downloads.server import ImageServer, redirect, send, serve_images

LOOPBACK = (ipaddress.ip_network("127.0.0.1/32"),)
QUICK = DownloadOptions(
    workers=8, delay_seconds=0.0, backoff_seconds=0.01, limits=FetchLimits(5.0, 2.0, allowed=LOOPBACK)
)


def make_image(colour: str, form: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (9, 7), colour).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with serve_images() as server:
        yield server


def download(
    folder: Path, urls: list[str | None], options: DownloadOptions = QUICK, *, revalidate: bool = False
) -> DownloadSummary:
    """Download the images of a table with these URLs to `folder`/out."""
    table = pa.table({"product_id": [str(row) for row in range(len(urls))], "image": pa.array(urls, pa.string())})
    pq.write_table(table, folder / "products.parquet")
    return download_images(folder / "products.parquet", folder / "out", NOW, options, revalidate=revalidate)


def read_failure(folder: Path, url: str, options: DownloadOptions = QUICK) -> str:
    summary = download(folder, [url], options)
    (reason,) = summary.failed
    assert summary.failed == {reason: 1}
    return reason


def test_images_of_urls_reach_the_catalogue_and_each_url_is_asked_once(store: Settings, server: ImageServer) -> None:
    for colour in ("red", "blue"):
        server.answers[f"/{colour}.png"] = send(200, make_image(colour), "image/png")
    server.answers["/untyped"] = send(200, make_image("green", "WEBP"), None)
    Image.new("RGB", (9, 9), "white").save(store.file.parent / "file.png")
    urls = {name: f"{server.url}/{name}.png" for name in ("red", "blue", "gone")}
    urls |= {"again": f"{server.url}/red.png", "untyped": f"{server.url}/untyped", "ftp": "ftp://shop.example/a.png"}
    file = write_products(
        store,
        *({"product_id": name, "image": url} for name, url in urls.items()),
        {"product_id": "file", "image": str(store.file.parent / "file.png")},
        {"product_id": "none", "image": None},
    )
    output = store.file.parent / "out"
    before = pack_images(file, output, NOW)
    assert before.images == 1
    assert "6 products have the URL of an image: --download fetches it" in str(before)
    summary = download_images(file, output, NOW, QUICK)
    assert (summary.downloaded, summary.unchanged, summary.present) == (3, 0, 0)
    assert summary.failed == {"HTTP status 404": 1, fetch.INVALID_URL: 1}
    assert f"not downloaded 1: HTTP status 404, such as {urls['gone']}" in str(summary)
    assert server.asked == {"/red.png": 1, "/blue.png": 1, "/untyped": 1, "/gone.png": 1}
    packed = pack_images(file, output, NOW)
    assert (packed.images, packed.unreadable) == (5, {"image is a URL, not a file": 2})
    assert ingest_products(store, packed.table, NOW).new == len(urls) + 2
    images = {row["product_id"]: row["image"] for row in read_catalogue(store)}
    assert images["red"] == images["again"] != images["blue"]
    assert open_image(Path(images["blue"])).getpixel((0, 0)) == (0, 0, 255)
    assert images["gone"] is None


def test_a_second_run_asks_only_for_what_failed_and_a_lost_lmdb_is_filled_again(
    tmp_path: Path, server: ImageServer
) -> None:
    server.answers["/a"] = send(200, make_image("red"), "image/png")
    urls = [f"{server.url}/a", f"{server.url}/b"]
    assert download(tmp_path, urls).failed == {"HTTP status 404": 1}
    server.answers["/b"] = send(200, make_image("blue"), "image/png")
    again = download(tmp_path, urls)
    assert (again.downloaded, again.present, again.failed) == (1, 1, {})
    assert server.asked == {"/a": 1, "/b": 2}
    (tmp_path / "out" / "pictures" / "data.mdb").unlink()
    assert download(tmp_path, urls).downloaded == 2
    assert (tmp_path / "out" / "downloads.sqlite").stat().st_mode & 0o777 == 0o600


def test_an_interrupted_run_keeps_what_came(
    tmp_path: Path, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "COMMIT_IMAGES", 3)
    urls = [f"{server.url}/{row}" for row in range(10)]
    for row in range(10):
        server.answers[f"/{row}"] = send(200, make_image(f"#0000{row:02}"), "image/png")
    table = pa.table({"image": urls})
    pq.write_table(table, tmp_path / "products.parquet")

    def interrupt(done: int) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_images(tmp_path / "products.parquet", tmp_path / "out", NOW, QUICK, progress=interrupt)
    rest = download(tmp_path, list(urls))
    assert rest.present == 5
    assert rest.downloaded == 5


def test_revalidation_asks_with_the_servers_tag_and_keeps_an_image_that_fails_later(
    tmp_path: Path, server: ImageServer
) -> None:
    conditions: list[tuple[str | None, str | None]] = []
    current = {"tag": '"1"', "body": make_image("red")}

    def answer(handler: BaseHTTPRequestHandler) -> None:
        conditions.append((handler.headers["If-None-Match"], handler.headers["If-Modified-Since"]))
        headers = {"ETag": current["tag"], "Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT"}
        known = handler.headers["If-None-Match"] == current["tag"]
        send(304 if known else 200, b"" if known else current["body"], "image/png", headers)(handler)

    server.answers["/a"] = answer
    url = f"{server.url}/a"
    assert download(tmp_path, [url]).downloaded == 1
    assert download(tmp_path, [url], revalidate=True).unchanged == 1
    current |= {"tag": '"2"', "body": make_image("blue")}
    assert download(tmp_path, [url], revalidate=True).downloaded == 1
    assert download(tmp_path, [url], revalidate=True).unchanged == 1
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    assert conditions == [(None, None), ('"1"', date), ('"1"', date), ('"2"', date)]
    del server.answers["/a"]
    assert download(tmp_path, [url], revalidate=True).failed == {"HTTP status 404": 1}
    key = content_hash(current["body"]).hex()
    assert image_store.list_stored(tmp_path / "out" / "pictures", [key]) == {key}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (send(200, b"<html>log in</html>", "text/html; charset=utf-8"), "not an image but text/html"),
        (send(200, b"<html>log in</html>", "image/jpeg"), "not a format that is read (HTML)"),
        (send(200, b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "image/heic"), "not a format that is read (HEIC)"),
        (send(200, b"", "image/png"), "not an image of a known format"),
        (send(403, b"", "image/png"), "HTTP status 403"),
        (send(304, b"", "image/png"), "HTTP status 304"),
        (send(200, make_image("red")[:40], "image/png", {"Content-Length": "5000", "Connection": "close"}), ""),
    ],
)
def test_an_answer_that_is_no_whole_image_is_a_failure_with_its_reason(
    answer: object, reason: str, tmp_path: Path, server: ImageServer
) -> None:
    server.answers["/a"] = answer  # type: ignore[assignment]
    options = replace(QUICK, limits=replace(QUICK.limits, stall_seconds=0.2), attempts=2)
    assert read_failure(tmp_path, f"{server.url}/a", options) in (reason or (fetch.INTERRUPTED, fetch.TOO_SLOW))


def test_a_body_and_a_head_are_bounded_in_size_and_time(tmp_path: Path, server: ImageServer) -> None:
    limits = replace(QUICK.limits, seconds=0.3, max_bytes=100_000)
    options = replace(QUICK, limits=limits, attempts=1)

    def drip_body(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "image/png")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.02)

    def drip_head(handler: BaseHTTPRequestHandler) -> None:
        for letter in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 80:
            handler.wfile.write(bytes([letter]))
            handler.wfile.flush()
            time.sleep(0.02)

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "image/png")
        handler.end_headers()
        while True:
            handler.wfile.write(b"\x89PNG" * 10_000)

    server.answers |= {"/body": drip_body, "/head": drip_head, "/endless": endless}
    server.answers["/stated"] = send(200, b"x", "image/png", {"Content-Length": str(10**12)})
    start = time.monotonic()
    summary = download(tmp_path, [f"{server.url}{path}" for path in server.answers], options)
    assert time.monotonic() - start < 2.0
    assert summary.failed[fetch.TOO_LARGE] == 2
    assert summary.failed[fetch.TOO_SLOW] == 2


def test_a_temporary_failure_is_asked_again_and_a_wait_is_kept(tmp_path: Path, server: ImageServer) -> None:
    image = send(200, make_image("red"), "image/png")
    failures = [send(503, b"", None), send(429, b"", None, {"Retry-After": "1"})]
    server.answers["/a"] = lambda handler: (failures.pop(0) if failures else image)(handler)
    assert download(tmp_path, [f"{server.url}/a"]).downloaded == 1
    assert server.asked["/a"] == 3
    assert server.times[-1] - server.times[-2] >= 0.95


def test_a_host_that_asks_for_a_long_wait_is_left_alone_in_this_run(tmp_path: Path, server: ImageServer) -> None:
    urls = [f"{server.url}/{row}" for row in range(50)]
    server.answers = {f"/{row}": send(429, b"", None, {"Retry-After": "86400"}) for row in range(50)}
    summary = download(tmp_path, list(urls), replace(QUICK, per_host=1))
    assert summary.failed == {run.ASKED_TO_WAIT: 50}
    assert server.asked.total() == 1


def test_one_host_is_asked_by_few_at_once_and_not_too_often(tmp_path: Path, server: ImageServer) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.03)
        send(200, make_image("red"), "image/png")(handler)

    server.answers = {f"/{row}": slow for row in range(12)}
    options = replace(QUICK, per_host=2, delay_seconds=0.02)
    assert download(tmp_path, [f"{server.url}/{row}" for row in range(12)], options).downloaded == 12
    assert server.most_active <= 2
    gaps = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    assert sum(gaps) >= 11 * 0.02 - 0.01


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254", "10.0.0.1"])
def test_a_private_address_is_not_connected_to(host: str, tmp_path: Path, server: ImageServer) -> None:
    options = replace(QUICK, limits=replace(QUICK.limits, allowed=()), attempts=1)
    url = f"http://{host}:{server.server_address[1]}/a"
    assert read_failure(tmp_path, url, options) == fetch.FORBIDDEN_ADDRESS
    assert not server.connections


def test_a_redirect_reaches_no_private_address_and_no_other_scheme(tmp_path: Path, server: ImageServer) -> None:
    with serve_images("127.0.0.2") as private:
        private.answers["/a"] = send(200, make_image("red"), "image/png")
        server.answers |= {
            "/private": redirect(f"{private.url}/a"),
            "/file": redirect("file:///etc/passwd"),
            "/loop": redirect("/loop"),
            "/moved": redirect("image?size=9"),
            "/image": send(200, make_image("red"), "image/png"),
        }
        paths = ["/private", "/file", "/loop", "/moved"]
        summary = download(tmp_path, [f"{server.url}{path}" for path in paths])
        assert summary.failed == {fetch.FORBIDDEN_ADDRESS: 1, fetch.INVALID_URL: 1, run.TOO_MANY_REDIRECTS: 1}
        assert summary.downloaded == 1
        assert not private.connections
        assert server.asked["/loop"] == run.MAX_REDIRECTS + 1


def test_a_name_is_looked_up_once_and_the_checked_address_is_used(
    tmp_path: Path, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that answers first with an allowed address and then with a private one gains nothing."""
    with serve_images("127.0.0.2") as private:
        real, answers = socket.getaddrinfo, ["127.0.0.1"]

        def rebind(host: str, *rest: object, **named: object) -> object:
            if host != "shop.example":
                return real(host, *rest, **named)  # type: ignore[arg-type]
            return real(answers.pop() if answers else "127.0.0.2", *rest, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(socket, "getaddrinfo", rebind)
        server.answers["/a"] = send(200, make_image("red"), "image/png")
        assert download(tmp_path, [f"http://shop.example:{server.server_address[1]}/a"]).downloaded == 1
        assert server.connections == 1
        url = f"http://shop.example:{private.server_address[1]}/b"
        assert read_failure(tmp_path, url) == fetch.FORBIDDEN_ADDRESS
        assert not private.connections


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("224.0.1.1", False),
        ("255.255.255.255", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses_are_told_from_others(address: str, expected: bool) -> None:
    assert addresses.is_public(ipaddress.ip_address(address)) is expected


@pytest.mark.parametrize("url", ["https://user:secret@shop.example/a", "http:///a", "s3://bucket/a", "http://[::/a"])
def test_a_url_that_is_not_asked_is_a_failure_that_shows_no_query(url: str, tmp_path: Path) -> None:
    assert read_failure(tmp_path, url) == fetch.INVALID_URL
    summary = download(tmp_path, ["http://127.0.0.2:9/a?token=secret"])
    assert "secret" not in str(summary)


def test_the_command_downloads_and_writes_the_table(store: Settings, server: ImageServer) -> None:
    server.answers["/a"] = send(200, make_image("red"), "image/png")
    file = write_products(store, {"image": f"{server.url}/a"})
    arguments = ["images", "--products", str(file), "--output", str(store.file.parent / "x"), "--download"]
    refused = CliRunner().invoke(cli.app, arguments)
    assert f"not downloaded 1: {fetch.FORBIDDEN_ADDRESS}" in refused.output
    assert refused.exit_code == 1
    assert str(refused.exception).endswith(
        f"1 of 1 image URLs (100%; {fetch.FORBIDDEN_ADDRESS}, such as {server.url}/a) gave no image, more than 20%; "
        "the rest is written; run this again, or accept the loss with --max-lost-share 1"
    )
    assert CliRunner().invoke(cli.app, [*arguments, "--max-lost-share", "1"]).exit_code == 0
    result = CliRunner().invoke(cli.app, [*arguments, "--allow-network", "127.0.0.0/8"])
    assert result.exit_code == 0
    assert "1 image URLs: 1 downloaded, 0 unchanged, 0 here already, 0 failed" in result.output
    assert "1 products, 1 of them with an image in the LMDB" in result.output


def test_a_log_that_another_run_writes_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_log, "BUSY_SECONDS", 0.05)
    with download_log.open_log(tmp_path) as log:
        log.record([KnownUrl("https://shop.example/a.jpg")], NOW)
    with closing(sqlite3.connect(tmp_path / download_log.FILE)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConflictError, match="another run writes to it"), download_log.open_log(tmp_path) as log:
            log.record([KnownUrl("https://shop.example/b.jpg")], NOW)
