"""A small server of the KServe protocol, version 2, with binary tensors: what Triton answers for an exported folder.

It stands for the other side of the connection. It runs the same ONNX files, refuses inputs that the folder's
config.pbtxt does not declare, and keeps what it was sent.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

DTYPES = {"UINT8": np.uint8, "INT64": np.int64, "FP32": np.float32}


class ServedRepository:
    """The models of a repository, and the inputs that each request had: (model, name, datatype, shape)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = ""
        self.received: list[tuple[str, str, str, tuple[int, ...]]] = []
        self.is_broken = False
        self._sessions: dict[str, Any] = {}

    def read_config(self, model: str) -> dict[str, Any]:
        text = (self.folder / model / "config.pbtxt").read_text()
        assert "dynamic_batching { }" in text
        inputs = re.search(r"input \[(.*?)\n\]", text, re.S)
        parameters = re.findall(r'parameters \{ key: "(\w+)" value: \{ string_value: "([^"]*)" \} \}', text)
        assert inputs is not None
        return {
            "name": model,
            "max_batch_size": int(re.search(r"max_batch_size: (\d+)", text)[1]),  # type: ignore[index]
            "input": {
                name: (kind, [int(size) for size in dims.split(", ")])
                for name, kind, dims in re.findall(
                    r'name: "(\w+)" data_type: TYPE_(\w+) dims: \[([-\d, ]+)\]', inputs[1]
                )
            },
            "parameters": {name: {"string_value": value} for name, value in parameters},
        }

    def infer(self, model: str, header: dict[str, Any], tensors: bytes) -> tuple[dict[str, Any], bytes]:
        config, start, values = self.read_config(model), 0, {}
        assert {one["name"] for one in header["inputs"]} == set(config["input"])
        for one in header["inputs"]:
            kind, dims = config["input"][one["name"]]
            size = one["parameters"]["binary_data_size"]
            assert one["datatype"] == kind
            assert one["shape"][0] <= config["max_batch_size"]
            assert all(wanted in (-1, actual) for wanted, actual in zip(dims, one["shape"][1:], strict=True))
            data = np.frombuffer(tensors[start : start + size], DTYPES[kind])
            values[one["name"]] = data.reshape(one["shape"])
            start += size
            self.received.append((model, one["name"], one["datatype"], tuple(one["shape"])))
        assert start == len(tensors)
        assert header["outputs"] == [{"name": "vectors", "parameters": {"binary_data": True}}]
        if model not in self._sessions:
            self._sessions[model] = onnxruntime.InferenceSession(str(self.folder / model / "1/model.onnx"))
        (vectors,) = self._sessions[model].run(["vectors"], values)
        output = {
            "name": "vectors",
            "datatype": "FP32",
            "shape": list(vectors.shape),
            "parameters": {"binary_data_size": vectors.nbytes},
        }
        return {"model_name": model, "model_version": "1", "outputs": [output]}, vectors.tobytes()


@contextmanager
def serve_repository(folder: Path) -> Iterator[ServedRepository]:
    """Serve an exported folder on a free port of the loopback interface."""
    repository = ServedRepository(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            match = re.fullmatch(r"/v2/models/(\w+)/config", self.path)
            assert match is not None
            self._send(json.dumps(repository.read_config(match[1])).encode(), {})

        def do_POST(self) -> None:
            match = re.fullmatch(r"/v2/models/(\w+)/infer", self.path)
            assert match is not None
            body = self.rfile.read(int(self.headers["content-length"]))
            if repository.is_broken:
                self._send(b'{"error": "out of memory"}', {}, 500)
                return
            length = int(self.headers["inference-header-content-length"])
            answer, tensors = repository.infer(match[1], json.loads(body[:length]), body[length:])
            header = json.dumps(answer).encode()
            self._send(header + tensors, {"inference-header-content-length": str(len(header))})

        def log_message(self, *args: object) -> None:
            """Write no log."""

        def _send(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    repository.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield repository
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
