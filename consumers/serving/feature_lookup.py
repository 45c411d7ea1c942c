"""What the store holds for a request: the features of its service, and affinity where the service has it.

Refused are a request that lacks what its service needs, vectors of two encoders, and whatever goes wrong with the
store, whose address is not said.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import numpy as np

from consumers.online.affinity import Affinity, fetch_with_affinity
from consumers.online.encoder_guard import MixedEncoders, require_one_encoder
from consumers.online.reader import NoServicesError, OnlineReader, UnknownFeaturesError
from consumers.serving.errors import Code, Refused
from consumers.serving.metrics import Metrics
from consumers.serving.request import Ask
from consumers.serving.response import AFFINITY, STATUS_WORDS, Answer, answer
from feature_repo.errors import VitrineError
from feature_repo.online.feature_batch import FeatureBatch
from feature_repo.schema import PRODUCT_ID, USER_ID

_log = logging.getLogger(__name__)


class Lookup:
    """Reads from one online store. Threads may share it.

    Args:
        reader: of the store; the caller closes it.
        metrics: are told of each row that is found, and by which status.
        clock: the time, with its offset from UTC.
    """

    def __init__(self, reader: OnlineReader, metrics: Metrics, clock: Callable[[], datetime]) -> None:
        self._reader = reader
        self._metrics = metrics
        self._clock = clock

    def answer(self, ask: Ask, *, counted: bool = True) -> Answer:
        """What is known of a request's candidates and user.

        Raises:
            Refused: there is no such service, it needs what the request does not bring, or the store does not answer or
                has no service at all.
        """
        with _store_answers():
            join_keys, on_demand = self._reader.join_keys(ask.service), self._reader.on_demand(ask.service)
        _refuse_what_is_not_served(ask, {key for keys in join_keys.values() for key in keys}, on_demand)
        with _store_answers():
            block, affinity = self._fetch(ask, with_affinity=bool(on_demand))
        of_user = {name for name, keys in join_keys.items() if PRODUCT_ID not in keys}
        if counted:
            self._count(ask, block)
        return answer(block, ask.product_ids, of_user, affinity)

    def services(self) -> dict[str, list[str]]:
        """The views of each feature service.

        Raises:
            Refused: the store does not answer.
        """
        with _store_answers():
            return {name: list(self._reader.join_keys(name)) for name in self._reader.services()}

    def warm_up(self) -> None:
        """Ask once for each feature service, so that no caller pays for connections, and what is imported when it is
        first needed: pyarrow imports pandas, where there is one, in a second. A store that does not answer yet is left
        to `check`."""
        with suppress(Refused):
            for service in self.services():
                with suppress(Refused):  # one that has features of more than products and users
                    self.answer(Ask(service=service, product_ids=["nobody"], user_id="nobody"), counted=False)

    def check(self) -> None:
        """Ask the store for something.

        Raises:
            Refused: it does not answer.
        """
        with _store_answers():
            self._reader.ping()

    def _fetch(self, ask: Ask, *, with_affinity: bool) -> tuple[FeatureBatch, Affinity]:
        now = self._clock()
        if with_affinity:
            user = ask.user_id or ""
            return fetch_with_affinity(self._reader, ask.service, user, ask.product_ids, now, keep_stale=ask.keep_stale)
        ids: dict[str, Any] = {PRODUCT_ID: ask.product_ids, USER_ID: ask.user_id}
        block = self._reader.fetch(ask.service, ids, full_feature_names=True, keep_stale=ask.keep_stale, now=now)
        require_one_encoder(block)
        return block, {}

    def _count(self, ask: Ask, block: FeatureBatch) -> None:
        self._metrics.candidates.labels(ask.service).inc(len(ask.product_ids))
        for name, view in block.views.items():
            for status, rows in enumerate(np.bincount(view.rows.status).tolist()):
                if rows:
                    self._metrics.rows.labels(name, STATUS_WORDS[status]).inc(rows)


def _refuse_what_is_not_served(ask: Ask, join_keys: set[str], on_demand: tuple[str, ...]) -> None:
    """See that a service needs no more than a request brings and is computed here."""
    strange = sorted(join_keys - {PRODUCT_ID, USER_ID})
    if strange:
        raise Refused(Code.INVALID_ARGUMENT, f"`{ask.service}` asks for {', '.join(strange)}: not served")
    if USER_ID in join_keys and ask.user_id is None:
        raise Refused(Code.INVALID_ARGUMENT, f"`{ask.service}` has features of the user: say user_id")
    unknown = sorted(set(on_demand) - {AFFINITY})
    if unknown:
        raise Refused(Code.INVALID_ARGUMENT, f"`{ask.service}` has {', '.join(unknown)}, which Feast alone computes")


@contextmanager
def _store_answers() -> Iterator[None]:
    """What goes wrong with the store, said without its address."""
    try:
        yield
    except MixedEncoders as error:
        raise Refused(Code.UNAVAILABLE, str(error)) from error
    except VitrineError as error:
        if isinstance(error, UnknownFeaturesError) and not isinstance(error, NoServicesError):
            raise Refused(Code.NOT_FOUND, str(error)) from error
        _log.error("%s", error)
        raise Refused(Code.UNAVAILABLE, "the online store does not answer as it should; the log says how") from error
