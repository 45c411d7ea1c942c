"""An exported tower, run by a Triton Inference Server that serves the export as its model repository.

Pictures are sent as uint8 pixels, a quarter of float32. Triton puts the requests of all clients that wait at the same
time into one batch. Needs the extra `triton`.
"""

import threading
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from feature_repo import extras
from feature_repo.errors import EncoderMismatchError, InvalidInputError, UnavailableError
from feature_repo.exported.files import OUTPUT, VERSION_PARAMETER
from feature_repo.exported.towers import Inputs, RunTower, Vectors

CONNECT_SECONDS, ANSWER_SECONDS = 2.0, 5.0
"""Longest time to connect, and between two parts of a response."""


def open_triton_tower(address: str, tower: str, encoder_version: str) -> RunTower:
    """Return a function that sends inputs to a server. Several threads may call it at once.

    Args:
        address: http://host:port or https://host:port.
        tower: name of the model.
        encoder_version: the encoder that the server must serve.

    Raises:
        InvalidInputError: the address is none.
        ModuleNotFoundError: the extra `triton` is not installed.
        UnavailableError: the server does not answer, or has no such model.
        EncoderMismatchError: it serves another encoder version.
    """
    extras.require("triton", "tritonclient", "geventhttpclient")
    clients = _Clients(address)
    config = clients.ask(lambda client: client.get_model_config(tower))
    served = config.get("parameters", {}).get(VERSION_PARAMETER, {}).get("string_value", "no stated version")
    if served != encoder_version:
        raise EncoderMismatchError(
            f"{address}: {tower} is of {served}, the export of {encoder_version}; serve this export with Triton"
        )

    def run(inputs: Inputs) -> Vectors:
        return clients.ask(lambda client: _infer(client, tower, inputs))

    return run


class _Clients:
    """One client of a server for each thread, because a client belongs to the thread that made it."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise InvalidInputError(f"{address!r} is no address of a Triton server; expected http://HOST:PORT")
        self._address = address
        self._netloc, self._is_tls = parts.netloc, parts.scheme == "https"
        self._local = threading.local()

    def ask(self, call: Any) -> Any:
        """Return what a call with this thread's client returns.

        Raises:
            UnavailableError: it fails.
        """
        from tritonclient.http import InferenceServerClient

        try:
            if not hasattr(self._local, "client"):
                self._local.client = InferenceServerClient(
                    self._netloc,
                    ssl=self._is_tls,
                    connection_timeout=CONNECT_SECONDS,
                    network_timeout=ANSWER_SECONDS,
                )
            return call(self._local.client)
        except Exception as error:  # tritonclient, gevent and its HTTP client raise errors of their own
            message = " ".join(str(error).split())[:200] or type(error).__name__
            raise UnavailableError(f"the Triton server at {self._address} does not answer ({message})") from error


def _infer(client: Any, tower: str, inputs: Inputs) -> Vectors:
    from tritonclient.http import InferInput, InferRequestedOutput
    from tritonclient.utils import np_to_triton_dtype

    sent = []
    for name, values in inputs.items():
        part = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        part.set_data_from_numpy(np.ascontiguousarray(values), binary_data=True)
        sent.append(part)
    result = client.infer(tower, sent, outputs=[InferRequestedOutput(OUTPUT, binary_data=True)])
    return result.as_numpy(OUTPUT)
