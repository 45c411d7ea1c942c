"""The Redis store: the suite of every store, expiry, clusters, Sentinels, logins, and servers that fail."""

import asyncio
import threading
import time
from pathlib import Path

import pytest
from redis.backoff import ExponentialWithJitterBackoff

from feature_repo.errors import VitrineError
from feature_repo.online import redis_connection, redis_store
from feature_repo.online.open_store import open_store
from feature_repo.online.redis_connection import RedisAddress, parse_connection_string, parse_url
from feature_repo.online.redis_store import RedisStore
from tests import servers
from tests.feature_repo.online.store_suite import StoreSuite, make_row
from tests.servers import RedisServer

SECOND = 1_000_000
DAY = 86_400 * SECOND


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_connection, "_BACKOFF", ExponentialWithJitterBackoff(cap=0.05, base=0.01))


@pytest.fixture(params=["one server", "cluster"])
def store(request: pytest.FixtureRequest) -> RedisStore:
    if request.param == "cluster":
        nodes = request.getfixturevalue("redis_cluster")
        address = parse_connection_string(",".join(node.address for node in nodes[:2]), "redis_cluster")
    else:
        nodes = [request.getfixturevalue("redis")]
        address = parse_connection_string(nodes[0].address + ",db=3")
    for node in nodes:
        node.client().flushall()
    return RedisStore(address)


class TestRedisStore(StoreSuite):
    """On one server and on a cluster, with limits that small tests exceed."""

    @pytest.fixture(autouse=True)
    def small_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_store, "KEYS_PER_CALL", 3)
        monkeypatch.setattr(redis_store, "KEYS_PER_STEP", 3)
        monkeypatch.setattr(redis_store, "ROWS_PER_CALL", 7)
        monkeypatch.setattr(redis_store, "CALLS_PER_TRIP", 2)

    def get_raw(self, store: RedisStore, key: bytes) -> bytes | None:
        return store.client.get(key)

    def put_raw(self, store: RedisStore, key: bytes, value: bytes) -> None:
        store.client.set(key, value)


def test_an_abandoned_pipeline_leaves_no_reply_to_the_next(redis: RedisServer) -> None:
    store = RedisStore(parse_connection_string(redis.address + ",db=3"))
    store.write([b"a", b"b"], [make_row(1), make_row(2)], 0)
    sleeper = threading.Thread(target=redis.client().execute_command, args=("DEBUG", "SLEEP", 0.3))
    sleeper.start()
    time.sleep(0.1)
    with store.pipeline() as pipeline:
        pipeline.send([b"a"])  # its reply arrives after the next pipeline has begun
    with store.pipeline() as pipeline:
        pipeline.send([b"b"])
        assert pipeline.receive() == [make_row(2)]
    sleeper.join()


def test_rows_expire_a_day_after_their_ttl_or_after_a_later_write(store: RedisStore) -> None:
    now = time.time_ns() // 1000
    keys = [b"middle-aged", b"new", b"late", b"before 1970"]
    store.write(keys, [make_row(now - DAY), make_row(now), make_row(now - 9 * DAY), make_row(-DAY)], 2 * DAY)
    store.write([b"never"], [make_row(now - 900 * DAY)], 0)
    lives = [store.client.pttl(key) * 1000 / DAY for key in (*keys, b"never")]
    assert lives == pytest.approx([2, 3, 1, 1, 0], abs=0.001)


def test_rows_with_a_ttl_of_decades_expire_only_with_max_ttl_seconds(redis: RedisServer) -> None:
    now = time.time_ns() // 1000
    for max_ttl_seconds, life in [(None, -1), (60, pytest.approx(60_000, abs=5000))]:
        store = RedisStore(parse_connection_string(redis.address + ",db=3"), max_ttl_seconds=max_ttl_seconds)
        store.client.flushdb()
        store.write([b"k"], [make_row(now)], redis_store.LONG_TTL_US + 1)
        assert store.client.pttl(b"k") == life


def test_max_ttl_seconds_limits_all_rows(redis: RedisServer) -> None:
    store = RedisStore(parse_connection_string(redis.address), max_ttl_seconds=60)
    now = time.time_ns() // 1000
    store.write([b"a", b"b"], [make_row(now), make_row(now)], 5 * DAY)
    store.write([b"c"], [make_row(now)], 0)
    assert [store.client.pttl(key) for key in (b"a", b"b", b"c")] == pytest.approx([60_000] * 3, abs=5000)


def test_a_server_that_lost_the_script_gets_it_again(store: RedisStore) -> None:
    store.write([b"k"], [make_row(1)], 0)
    store.client.script_flush()
    assert store.write([b"k", b"l"], [make_row(2), make_row(2)], 0) == 2
    store.client.script_flush()
    assert asyncio.run(store.write_async([b"k"], [make_row(3)], 0)) == 1


def test_it_continues_when_the_server_is_back(tmp_path: Path) -> None:
    with servers.redis_server(tmp_path) as server:
        store = RedisStore(parse_connection_string(server.address))
        store.write([b"k"], [make_row(1)], 0)
        server.kill()
        started = time.monotonic()
        for attempt in (lambda: store.read([[b"k"]]), lambda: store.write([b"k"], [make_row(2)], 0)):
            with pytest.raises(VitrineError, match=f"Redis at {server.address} does not answer after 5 attempts"):
                attempt()
        with pytest.raises(VitrineError, match="does not answer"):
            asyncio.run(store.read_async([[b"k"]]))
        assert time.monotonic() - started < 15
        server.start()
        assert store.read([[b"k"]]) == [[None]], "the server keeps nothing on disk"
        assert store.write([b"k"], [make_row(1)], 0) == 1


def test_a_pipeline_survives_a_lost_connection_and_reports_a_lost_server(tmp_path: Path) -> None:
    with servers.redis_server(tmp_path) as server:
        store = RedisStore(parse_connection_string(server.address))
        store.write([b"k", b"l"], [make_row(1), make_row(2)], 0)
        with store.pipeline() as pipeline:
            pipeline.send([b"k"])
            assert pipeline.receive() == [make_row(1)]
            server.client().client_kill_filter(_type="normal")
            pipeline.send([b"l"])
            pipeline.send([b"k"])
            assert (pipeline.receive(), pipeline.receive()) == ([make_row(2)], [make_row(1)])
        with store.pipeline() as pipeline:
            server.kill()
            pipeline.send([b"k"])
            with pytest.raises(VitrineError, match=f"Redis at {server.address} does not answer after 5 attempts"):
                pipeline.receive()
        with store.pipeline() as pipeline:
            pipeline.send([b"k"])
            server.start()
            assert pipeline.receive() == [None], "the server keeps nothing on disk"


def test_a_full_server_raises_one_clear_error(tmp_path: Path) -> None:
    with servers.redis_server(tmp_path, "--maxmemory", "2mb", "--maxmemory-policy", "noeviction") as server:
        store = RedisStore(parse_connection_string(server.address))
        store.write([b"k"], [make_row(1)], 0)
        keys = [b"%d" % i for i in range(50_000)]
        with pytest.raises(VitrineError, match=r"refuses: .*OOM.*give it more memory"):
            store.write(keys, [make_row(1) + b"\0" * 400] * len(keys), 0)
        assert store.read([[b"k"]]) == [[make_row(1)]]


def test_a_server_that_cannot_write_its_disk_raises_one_clear_error(tmp_path: Path) -> None:
    with servers.redis_server(tmp_path, "--save", "3600", "1") as server:
        store = RedisStore(parse_connection_string(server.address))
        client = server.client()
        client.set("other", 1)
        client.config_set("dir", str(tmp_path))
        (tmp_path / "dump.rdb").mkdir()
        client.bgsave()
        deadline = time.monotonic() + 10
        while client.info("persistence")["rdb_last_bgsave_status"] == "ok" and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(VitrineError, match=r"refuses: .*MISCONF"):
            store.write([b"k"], [make_row(1)], 0)


def test_a_password_is_required_and_sent(tmp_path: Path) -> None:
    with servers.redis_server(tmp_path, "--requirepass", "12345") as server:
        with pytest.raises(VitrineError, match=r"refuses.*[Aa]uthentication"):
            RedisStore(parse_connection_string(server.address)).get(b"k")
        with pytest.raises(VitrineError, match=r"refuses the login"):
            RedisStore(parse_connection_string(server.address + ",password=wrong")).get(b"k")
        for address in (
            parse_connection_string(server.address + ",password=12345"),
            parse_url(f"redis://:12345@{server.address}/0"),
        ):
            assert RedisStore(address).compare_and_swap(b"k" + address.kind.encode(), None, b"x") or address.options


def test_tls_works_and_an_unknown_certificate_is_refused(redis: RedisServer, tmp_path: Path) -> None:
    with servers.tls_before(redis, tmp_path) as port:
        for address in (
            parse_connection_string(f"127.0.0.1:{port},ssl=true,ssl_ca_certs={tmp_path}/cert.pem"),
            parse_url(f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path}/cert.pem"),
        ):
            store = RedisStore(address)
            assert store.write([b"tls"], [make_row(1)], 0) == 1
            assert asyncio.run(store.read_async([[b"tls"]])) == [[make_row(1)]]
        with pytest.raises(VitrineError, match="CERTIFICATE_VERIFY_FAILED"):
            RedisStore(parse_connection_string(f"127.0.0.1:{port},ssl=true")).get(b"tls")


def test_a_master_is_found_by_its_sentinels(redis: RedisServer, tmp_path: Path) -> None:
    with servers.redis_sentinel(tmp_path, redis, "shop") as port:
        for address in (
            parse_connection_string(f"127.0.0.1:{port}", "redis_sentinel", "shop"),
            parse_url(f"redis-sentinel://127.0.0.1:{port}?master=shop"),
        ):
            store = RedisStore(address)
            assert store.write([b"sentinel"], [make_row(1)], 0) == 1
            assert redis.client().get(b"sentinel") == make_row(1)
            assert asyncio.run(store.read_async([[b"sentinel"]])) == [[make_row(1)]]


def test_addresses_are_parsed_from_connection_strings_and_urls() -> None:
    assert parse_connection_string("a:1,b:2,db=2,ssl=true,password=007,client_name=y", "redis_cluster") == RedisAddress(
        (("a", 1), ("b", 2)),
        "redis_cluster",
        options={"db": 2, "ssl": True, "password": "007", "client_name": "y"},
    )
    assert parse_url("redis://host/4") == RedisAddress((("host", 6379),), options={"db": 4})
    assert parse_url("redis-cluster://u:p%40@a:1,b") == RedisAddress(
        (("a", 1), ("b", 6379)), "redis_cluster", options={"username": "u", "password": "p@"}
    )
    with pytest.raises(VitrineError, match="`http://host` is not a Redis address"):
        parse_url("http://host")
    with pytest.raises(VitrineError, match="names no host"):
        parse_connection_string("db=1")
    with pytest.raises(VitrineError, match="expected host:port"):
        parse_connection_string("host:port")


@pytest.mark.parametrize("url", ["nonsense", "http://host:6379", "localhost:6379", "", "redis://[::1"])
def test_a_url_that_is_not_of_redis_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(VitrineError, match=r"is not a Redis address; expected redis://host:6379"):
        parse_url(url)


SECRET_PARTS = ("h0n", "e7y", "b33")
"""Parts of passwords in the addresses below."""


@pytest.mark.parametrize(
    "address",
    [
        "http://user:h0ne7y@host:6379",
        "redis://:h0n/e7y@host:6379",
        "redis://:h0n?e7y@host:6379",
        "redis://:h0n#e7y@host:6379/0",
        "redis://user:h0ne7y",
        "redis://:h0n,e7y@host:70000",
        "redis://:h0ne7y@host:port",
        "redis://host?password=h0n&e7y=b33",
        "redis://:h0ne7y@host?db=b33",
        "rediss://host?ssl_cert_reqs=1&password=h0ne7y",
        "redis-cluster://:h0n@e7y@a:1,b:0",
        "h0ne7y@host",
        "host:6379,password=h0n,e7y,ssl=true",
        "host:6379,password=h0n,e7y:6379",
        "host:6379,password=h0n,e7y=b33",
        "host:6379,password=h0n,ssl=b33",
        "host:6379,password=h0n,db=b33,e7y",
        "host:6379,ssl=true,password=h0n,b33",
        "redis://:h0n,e7y/b33@host",
    ],
)
def test_no_message_shows_a_part_of_a_password(address: str) -> None:
    for open_ in (parse_url, parse_connection_string, open_store):
        if open_ is parse_connection_string and "://" not in address and "password" not in address:
            continue
        with pytest.raises(VitrineError) as error:
            open_(address)
        assert "\n" not in str(error.value)
        assert not [part for part in SECRET_PARTS if part in str(error.value)]


def test_a_password_with_a_comma_is_refused_and_a_url_takes_any_password() -> None:
    with pytest.raises(VitrineError, match=r"Redis at a:1: .*part 3 .* no `=`; hosts come first, .*PASS%2CWORD"):
        parse_connection_string("a:1,password=left,right,ssl=true")
    for text in ("rediss://u:l%2Cr%40%2F%3F@a:1/2", "rediss://u:l%2Cr%40%2F%3F@a:1?db=2"):
        address = parse_connection_string(text)
        assert address == parse_url(text)
        assert address.options == {"username": "u", "password": "l,r@/?", "ssl": True, "db": 2}
        assert "l,r" not in f"{address} {address!r}"
    assert parse_connection_string("redis-cluster://a:1,b:2") == parse_connection_string("a:1,b:2", "redis_cluster")


@pytest.mark.parametrize(
    ("hosts", "options", "message"),
    [
        ("host:99999", "", "`host:99999`: expected host:port, with a port from 1 to 65535"),
        ("host:0", "", "a port from 1 to 65535"),
        ("host:\N{SUPERSCRIPT TWO}", "", "a port from 1 to 65535"),
        (":6379", "", "expected host:port"),
        ("host", "foo=secret", "Redis at host:6379: unknown option `foo`; options are db, "),
        ("host", "port=1", "unknown option `port`"),
        ("host", "retry=3", "unknown option `retry`"),
        ("host", "socket_timeout=soon", "option `socket_timeout` is 'soon'; expected seconds"),
        ("host", "socket_timeout=-1", "option `socket_timeout` is -1; expected seconds"),
        ("host", "db=mine", "option `db` is 'mine'; expected a whole number"),
        ("host", "ssl=maybe", "option `ssl` is 'maybe'; expected true or false"),
        ("host", "ssl_cert_reqs=1", "option `ssl_cert_reqs` is 1; expected text"),
    ],
)
def test_an_invalid_address_raises_one_line_without_secrets(hosts: str, options: str, message: str) -> None:
    for make, text in (
        (parse_url, f"redis://{hosts}?{options}"),
        (parse_connection_string, f"{hosts}:6379,{options}" if hosts == "host" else hosts),
    ):
        with pytest.raises(VitrineError) as error:
            make(text)
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["redis://host?require_full_coverage=true", "redis-sentinel://host?ssl_ca_certs=file"])
def test_an_option_of_another_kind_of_address_is_refused(url: str) -> None:
    for connect in (parse_url(url).connect, parse_url(url).connect_async):
        with pytest.raises(VitrineError, match=r"Redis at host:\d+: redis\w* does not take the options"):
            connect()


def test_options_of_every_type_are_accepted(redis: RedisServer) -> None:
    seconds = "socket_timeout=0.5&socket_connect_timeout=null"
    address = parse_url(f"redis://:@{redis.address}/1?{seconds}&max_connections=9&client_name=7&socket_keepalive=true")
    store = RedisStore(address)
    assert store.get(b"nothing") is None
    assert [one["name"] for one in store.client.client_list() if one["db"] == "1"] == ["7"]
