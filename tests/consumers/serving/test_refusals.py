"""Requests that are not answered get an error of the protocol, in time, without internals of the server."""

import concurrent.futures
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.flight as flight
import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from consumers.online import OnlineReader
from consumers.serving import request
from consumers.serving.client import FlightClient, HttpClient, encode_request
from feature_repo.auth import ServerAccess, TlsCertificate
from feature_repo.errors import UsageError, VitrineError
from feature_repo.online.catalog import Service
from feature_repo.online.lmdb_store import LMDBStore
from feature_repo.online.table import OnlineTable
from feature_repo.server.request_log import AccessLog
from feature_repo.serving_limits import ServingLimits
from tests import servers
from tests.consumers.serving.running import TOKEN, Served, serving
from tests.small_disk import no_file_longer_than

GOOD: dict[str, Any] = {"service": "ranking", "user_id": "7", "product_ids": ["bear"]}
BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "no service": ({"product_ids": ["bear"]}, 400, "service: Field required"),
    "an unknown service": (GOOD | {"service": "rankings"}, 404, "no service or view `rankings`"),
    "no candidates": (GOOD | {"product_ids": []}, 400, "product_ids: List should have at least 1 item"),
    "too many": (GOOD | {"product_ids": ["bear"] * 1_001}, 400, "1,001 candidates; a request may have at most 1,000"),
    "an empty id": (GOOD | {"product_ids": ["bear", ""]}, 400, "product_ids.1: String should have at least 1"),
    "an id that is a number": (GOOD | {"product_ids": [3]}, 400, "product_ids.0: Input should be a valid string"),
    "a long id": (GOOD | {"user_id": "u" * 257}, 400, "user_id: String should have at most 256"),
    "no user": ({"service": "ranking", "product_ids": ["bear"]}, 400, "give user_id"),
    "an unknown field": (GOOD | {"path": "/etc/passwd"}, 400, "path: Extra inputs are not permitted"),
    "a deadline of zero": (GOOD | {"deadline_ms": 0}, 400, "deadline_ms: Input should be greater"),
}


def reveals_internals(message: str) -> bool:
    """Return whether a message contains a traceback, a path or an address of the server."""
    return any(word in message for word in ("Traceback", 'File "', ".py", "site-packages", "127.0.0.1:", "/tmp"))


def by_flight(address: str, ticket: bytes, **options: Any) -> flight.FlightError:
    """Return the error that Flight raises for a ticket."""
    with flight.connect(address) as client, pytest.raises(flight.FlightError) as refused:
        client.do_get(flight.Ticket(ticket), flight.FlightCallOptions(**options)).read_all()
    return refused.value


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_gets_the_fault_and_its_place_over_both_protocols(served: Served, what: str) -> None:
    body, status, text = BAD[what]
    over_http = httpx.post(f"{served.http}/v1/features", json=body)
    assert over_http.status_code == status
    assert text in over_http.json()["message"]
    over_flight = by_flight(served.flight, httpx.Request("POST", "/", json=body).content)
    assert over_http.json()["error"].encode() == over_flight.extra_info
    assert text in str(over_flight)
    assert not reveals_internals(str(over_flight))


@given(ticket=st.binary(max_size=300) | st.recursive(st.none() | st.text(), st.lists).map(repr).map(str.encode))
@example(ticket=b"")
@example(ticket=b'{"service": "\\ud800", "product_ids": ["\\ud800"]}')
@example(ticket=b"[" * 100_000)
@example(ticket=b" " * (ServingLimits().max_request_bytes + 1))
def test_a_ticket_that_is_not_a_request_is_an_invalid_argument(served: Served, ticket: bytes) -> None:
    refused = by_flight(served.flight, ticket)
    assert refused.extra_info == b"INVALID_ARGUMENT"
    assert not reveals_internals(str(refused))


def test_other_flight_methods_are_errors_without_a_traceback(served: Served) -> None:
    client = flight.connect(served.flight)
    descriptor = flight.FlightDescriptor.for_path("/etc/passwd")
    table = pa.table({"a": [1]})
    for call in (
        lambda: list(client.list_flights()),
        lambda: client.get_flight_info(descriptor),
        lambda: client.get_schema(descriptor),
        lambda: list(client.do_action(flight.Action("shutdown", b""))),
        lambda: _put(client, descriptor, table),
        lambda: _exchange_without_a_request(client, table),
    ):
        with pytest.raises((flight.FlightError, OSError), match=r"^(UNIMPLEMENTED|INVALID_ARGUMENT): ") as refused:
            call()
        assert not reveals_internals(str(refused.value))


def test_an_error_ends_the_stream_and_the_client_opens_another(served: Served) -> None:
    with FlightClient(served.flight, "ranking") as client:
        assert client.fetch("7", ["bear"]).candidates.num_rows == 1
        with pytest.raises(flight.FlightError, match="INVALID_ARGUMENT: product_ids"):
            client.fetch("7", [])
        assert client.fetch("7", ["bear"]).candidates.num_rows == 1


def check_three_streams_and_no_fourth(served: Served) -> None:
    clients = [FlightClient(served.flight, "ranking") for _ in range(4)]
    for client in clients[:3]:
        client.fetch("7", ["bear"])
    with pytest.raises(flight.FlightUnavailableError, match="RESOURCE_EXHAUSTED: 3 streams are open"):
        clients[3].fetch("7", ["bear"])
    for client in clients:
        client.close()


def test_a_stream_above_the_limit_is_an_error(served: Served) -> None:
    check_three_streams_and_no_fourth(served)


def test_ended_and_refused_streams_do_not_count(served: Served) -> None:
    def open_and_close(_: int) -> bool:
        with FlightClient(served.flight, "ranking") as client:
            try:
                return client.fetch("7", ["bear"]).candidates.num_rows == 1
            except flight.FlightUnavailableError:
                return False

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert any(list(pool.map(open_and_close, range(120))))
    check_three_streams_and_no_fourth(served)


def test_a_full_queue_is_an_error_at_once_and_a_long_wait_is_one_at_the_deadline(
    reader: OnlineReader, redis_server: servers.RedisServer
) -> None:
    redis = redis_server.client()
    with serving(reader, limits=ServingLimits(workers=1, queue_size=1, deadline_seconds=0.6)) as served:
        assert httpx.post(f"{served.http}/v1/features", json=GOOD).status_code == 200
        redis.client_pause(1_000, all=True)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            hung = [pool.submit(httpx.post, f"{served.http}/v1/features", json=GOOD) for _ in range(2)]
            time.sleep(0.3)
            full = httpx.post(f"{served.http}/v1/features", json=GOOD)
            refused = by_flight(served.flight, encode_request("ranking", "7", ["bear"]))
            late = [future.result() for future in hung]
        assert (full.status_code, full.json()["error"]) == (429, "RESOURCE_EXHAUSTED")
        assert full.headers["retry-after"] == "1"
        assert full.elapsed.total_seconds() < 0.2
        assert isinstance(refused, flight.FlightUnavailableError)
        assert refused.extra_info == b"RESOURCE_EXHAUSTED"
        assert [one.status_code for one in late] == [504, 504]
        assert all(0.4 < one.elapsed.total_seconds() < 0.95 for one in late)
        time.sleep(0.6)
        assert httpx.post(f"{served.http}/v1/features", json=GOOD).status_code == 200
        metrics = httpx.get(f"{served.http}/metrics").text
        assert 'vitrine_serving_requests_total{code="RESOURCE_EXHAUSTED",protocol="flight"} 1.0' in metrics
        assert "vitrine_serving_in_work 0.0" in metrics


def test_readiness_fails_at_the_deadline_if_the_store_hangs(
    reader: OnlineReader, redis_server: servers.RedisServer
) -> None:
    with serving(reader, limits=ServingLimits(deadline_seconds=0.3)) as served:
        assert httpx.get(f"{served.http}/readyz").status_code == 200
        redis_server.client().client_pause(1_000, all=True)
        hung = httpx.get(f"{served.http}/readyz")
        assert (hung.status_code, hung.json()["error"]) == (503, "UNAVAILABLE")
        assert 0.2 < hung.elapsed.total_seconds() < 0.8
        time.sleep(1)
        assert httpx.get(f"{served.http}/readyz").status_code == 200


def test_a_request_can_set_its_own_deadline(served: Served, redis_server: servers.RedisServer) -> None:
    httpx.post(f"{served.http}/v1/features", json=GOOD)
    redis_server.client().client_pause(300, all=True)
    late = by_flight(served.flight, encode_request("ranking", "7", ["bear"], deadline_ms=20))
    assert isinstance(late, flight.FlightTimedOutError)
    assert late.extra_info == b"DEADLINE_EXCEEDED"
    time.sleep(0.35)


def test_a_store_that_is_gone_is_503_without_its_address(tmp_path: Path) -> None:
    with servers.redis_server(tmp_path) as redis:
        reader = OnlineReader(f"redis://{redis.address}?socket_connect_timeout=0.1", "shop")
    with serving(reader, limits=ServingLimits(deadline_seconds=20)) as served:
        for answer in (
            httpx.post(f"{served.http}/v1/features", json=GOOD, timeout=30),
            httpx.get(f"{served.http}/readyz", timeout=30),
        ):
            assert (answer.status_code, answer.json()["error"]) == (503, "UNAVAILABLE")
            assert not reveals_internals(answer.text)
        assert httpx.get(f"{served.http}/healthz").status_code == 200


def test_a_store_deleted_while_served_is_503_and_not_created_again(tmp_path: Path) -> None:
    folder = tmp_path / "online"
    OnlineTable(LMDBStore(folder, create=True), "shop").catalog.set_services({"ranking": Service((), ())})
    with (
        OnlineReader(f"lmdb://{folder}", "shop") as reader,
        serving(reader, limits=ServingLimits(deadline_seconds=20)) as served,
    ):
        body = GOOD | {"service": "rankings"}
        assert httpx.post(f"{served.http}/v1/features", json=body).status_code == 404
        shutil.rmtree(folder)
        for answer in (httpx.post(f"{served.http}/v1/features", json=body), httpx.get(f"{served.http}/readyz")):
            assert (answer.status_code, answer.json()["error"]) == (503, "UNAVAILABLE")
        assert by_flight(served.flight, encode_request("rankings", "7", ["bear"])).extra_info == b"UNAVAILABLE"
        assert not folder.exists()


def test_a_store_without_services_is_503(tmp_path: Path) -> None:
    LMDBStore(tmp_path / "online", create=True)
    with OnlineReader(f"lmdb://{tmp_path}/online", "shop") as reader, serving(reader) as served:
        answer, ready = httpx.post(f"{served.http}/v1/features", json=GOOD), httpx.get(f"{served.http}/readyz")
        assert (answer.status_code, answer.json()["error"]) == (503, "UNAVAILABLE")
        assert (ready.status_code, ready.json()["error"]) == (503, "UNAVAILABLE")
        assert "the online store has no views: it is new, or it has lost its data" in ready.json()["message"]
        assert "no service or view `ranking`" in answer.json()["message"]
        assert not reveals_internals(ready.text + answer.text)
        assert served.lines()[0]["status"] == "UNAVAILABLE"


def test_only_health_is_answered_without_the_token(reader: OnlineReader) -> None:
    with serving(reader, access=ServerAccess(token=TOKEN)) as served:
        for path in ("/", "/docs", "/v1/services", "/metrics", "/openapi.json", "/nothing"):
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Token {TOKEN}"}):
                assert httpx.get(served.http + path, headers=headers).status_code == 401
        assert httpx.get(f"{served.http}/healthz").status_code == 200
        assert httpx.get(f"{served.http}/v1/services", auth=("anyone", TOKEN)).status_code == 200
        refused = by_flight(served.flight, encode_request("ranking", "7", ["bear"]))
        assert isinstance(refused, flight.FlightUnauthenticatedError)
        assert refused.extra_info == b"UNAUTHENTICATED"
        with (
            FlightClient(served.flight, "ranking", token="wrong") as client,
            pytest.raises(flight.FlightUnauthenticatedError),
        ):
            client.fetch("7", ["bear"])
        with FlightClient(served.flight, "ranking", token=TOKEN) as client:
            assert client.fetch("7", ["bear"]).candidates.num_rows == 1
        assert HttpClient(served.http, token=TOKEN).fetch("ranking", "7", ["bear"]).candidates.num_rows == 1


def test_both_protocols_speak_tls(reader: OnlineReader, tmp_path: Path) -> None:
    authority, (chain, key) = trustme.CA(), (tmp_path / "chain.pem", tmp_path / "key.pem")
    issued = authority.issue_cert("localhost")
    chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with serving(reader, access=ServerAccess(certificate=TlsCertificate(chain, key))) as served:
        roots = authority.cert_pem.bytes()
        with FlightClient(served.flight, "ranking", root_certificates=roots) as client:
            assert client.fetch("7", ["bear"]).candidates.num_rows == 1
        assert HttpClient(served.http, context=context).fetch("ranking", "7", ["bear"]).candidates.num_rows == 1
        with pytest.raises(ssl.SSLError):
            HttpClient(served.http).fetch("ranking", "7", ["bear"])


def test_files_that_are_not_a_certificate_and_its_key_are_an_error(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("-----BEGIN NONSENSE-----")
    with pytest.raises(VitrineError, match="not a certificate chain and its private key"):
        TlsCertificate(nonsense, nonsense)


def test_a_body_that_is_too_long_is_413_with_and_without_a_content_length(served: Served) -> None:
    longest = served.executor.max_request_bytes
    declared = httpx.post(f"{served.http}/v1/features", content=b" " * (longest + 1))
    streamed = httpx.post(f"{served.http}/v1/features", content=iter([b" " * longest, b" "]))
    for refused in (declared, streamed):
        assert (refused.status_code, refused.json()["error"]) == (413, "INVALID_ARGUMENT")


def send_half(address: str) -> socket.socket:
    """Open a connection and send half of a body."""
    url = httpx.URL(address)
    half = socket.create_connection((url.host, url.port or 80))
    half.sendall(b"POST /v1/features HTTP/1.1\r\nhost: here\r\ncontent-length: 100\r\n\r\n" + b" " * 50)
    return half


def test_a_caller_that_disconnects_within_a_body_is_not_a_server_error(
    reader: OnlineReader, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(reader) as served:
        send_half(served.http).close()
        time.sleep(0.2)
        assert [line["status"] for line in served.lines()] == ["CANCELLED"]
    assert caplog.records == []


def test_a_body_that_does_not_arrive_is_408_at_the_deadline_and_the_connection_is_closed(reader: OnlineReader) -> None:
    with serving(reader, limits=ServingLimits(deadline_seconds=0.3)) as served:
        with send_half(served.http) as half:
            half.settimeout(2)
            start, received = time.monotonic(), b""
            while chunk := half.recv(4_096):
                received += chunk
        assert 0.2 < time.monotonic() - start < 1.5
        assert received.startswith(b"HTTP/1.1 408 ")
        assert b'"error":"DEADLINE_EXCEEDED"' in received
        assert [line["status"] for line in served.lines()] == ["DEADLINE_EXCEEDED"]


def test_an_unknown_route_and_a_wrong_method_are_different_errors(served: Served) -> None:
    nowhere, got = httpx.get(f"{served.http}/v1/nothing"), httpx.get(f"{served.http}/v1/features")
    assert (nowhere.status_code, nowhere.json()["error"]) == (404, "NOT_FOUND")
    assert (got.status_code, got.json()["error"]) == (405, "METHOD_NOT_ALLOWED")
    assert got.headers["allow"] == "POST"
    assert got.json().keys() == nowhere.json().keys() == {"error", "message"}


def test_each_request_is_one_line_of_the_access_log_without_ids(reader: OnlineReader) -> None:
    with serving(reader) as served:
        httpx.post(f"{served.http}/v1/features", json=GOOD, headers={"x-request-id": "mine-1"})
        httpx.post(f"{served.http}/v1/features", json={}, headers={"x-request-id": 'forged" \t{}'})
        by_flight(served.flight, b"x", headers=[(b"x-request-id", b"mine-2")])
        good, bad, flown = served.lines()
        assert (good["id"], good["protocol"], good["status"], good["rows"]) == ("mine-1", "http", "OK", 1)
        assert 0 < good["ms"] < 5_000
        assert (bad["status"], len(bad["id"])) == ("INVALID_ARGUMENT", 32)
        assert (flown["id"], flown["protocol"], flown["status"]) == ("mine-2", "flight", "INVALID_ARGUMENT")
        assert "bear" not in served.log.getvalue()


def test_an_access_log_that_cannot_be_written_fails_no_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (tmp_path / "access.log").open("w") as stream:
        log = AccessLog(stream)
        log.write(id="first")
        with no_file_longer_than(10):
            log.write(id="second")
            log.write(id="third")
        log.write(id="fourth")
    messages = [record.message for record in caplog.records]
    assert messages[0].startswith("cannot write the access log (File too large)")
    assert messages[1].startswith("the access log can be written again; 2 lines may be lost")
    assert len(messages) == 2


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "shop.example"])
def test_other_addresses_than_the_loopback_need_a_token(host: str) -> None:
    with pytest.raises(UsageError, match="a server without a token may listen on the loopback address only"):
        ServerAccess(host)
    assert ServerAccess(host, TOKEN).is_authorized(f"Bearer {TOKEN}")
    with pytest.raises(VitrineError, match="at least 16 printable"):
        ServerAccess(host, "short")


def test_the_server_imports_no_feast_and_no_pickle() -> None:
    probe = "import sys, consumers.serving.server, consumers.serving.client; print(*sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True, cwd=root)
    assert not {"feast", "torch", "pandas", "deltalake"} & set(done.stdout.split())
    sources = "".join(file.read_text() for file in Path(request.__file__).parent.glob("*.py"))
    assert "import pickle" not in sources


def _put(client: Any, descriptor: Any, table: pa.Table) -> None:
    writer, _ = client.do_put(descriptor, table.schema)
    writer.write_table(table)
    writer.close()


def _exchange_without_a_request(client: Any, table: pa.Table) -> None:
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b""))
    writer.begin(table.schema)
    writer.write_table(table)
    writer.done_writing()
    reader.read_chunk()
