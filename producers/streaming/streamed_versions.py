"""The encoder versions whose rows a stream writes. They follow an encoder upgrade without a restart of the stream.

Without an upgrade it is the version in production. During an upgrade the other version's rows are written too: vectors
from the begin of the backfill, everything else from its end. After the switch the version in production comes first.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from feature_repo.config import Settings
from feature_repo.errors import EncoderMismatchError, VitrineError
from feature_repo.offline import production
from feature_repo.offline.production import State, Upgrade
from producers.embeddings.encoder_check import require_version
from producers.encoders import Encoder, load
from producers.streaming.clicks import InterestUpdater
from producers.streaming.product_rows import ProductPipeline
from producers.upgrade.both_versions import WrittenVersion, list_written_versions

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamedVersion:
    """What turns messages into rows of one encoder version."""

    pipeline: ProductPipeline
    """Turns product messages into rows."""
    interests: InterestUpdater | None
    """Turns click messages into rows; None during the version's backfill."""

    @property
    def version(self) -> str:
        """`name@fingerprint`."""
        return self.pipeline.encoder.version

    @property
    def is_complete(self) -> bool:
        """Whether all rows are written, not only vectors."""
        return self.interests is not None


class StreamedVersions:
    """The versions whose rows are written now: `current`, that in production first; never empty."""

    def __init__(
        self,
        settings: Settings,
        encoder: Encoder,
        open_version: Callable[[Encoder, bool], StreamedVersion],
    ) -> None:
        """Open the versions of the current state of the store.

        Args:
            settings: the deployment.
            encoder: the encoder of the stream.
            open_version: returns what turns messages into rows of an encoder; with False, into vectors only.

        Raises:
            EncoderMismatchError: rows of the stream's encoder would not be read: it is not of the upgrade, nor in
                production.
            VitrineError: the labels, the log or the codebook cannot be read.
        """
        self._settings = settings
        self._encoder = encoder
        self._open_version = open_version
        self._sequence = 0
        self._production_version = encoder.version
        self.current: tuple[StreamedVersion, ...] = ()
        self.refresh()
        if not self.current:  # a store without a recorded version
            self.current = (open_version(encoder, True),)

    def refresh(self) -> set[str]:
        """Follow the upgrade to its current state; return the versions whose rows are not written any more.

        Opening another version takes as long as starting a stream with its encoder. If the version that is not in
        production cannot be opened, a warning is logged; `produce upgrade catch-up` writes its rows.

        Raises:
            EncoderMismatchError: the version in production has no known checkpoint.
            VitrineError: the version in production cannot be opened, or the state cannot be read.
        """
        upgrade = production.read_current(self._settings.offline)
        if upgrade is None or upgrade.sequence == self._sequence:
            return set()
        before = {one.version: one for one in self.current}
        opened = [self._follow(wanted, before, upgrade) for wanted in list_written_versions(upgrade)]
        current = tuple(one for one in opened if one is not None)
        if not current:
            self._require_candidate(upgrade)
            current = (before.get(self._encoder.version) or self._open_version(self._encoder, True),)
        self.current, self._sequence, self._production_version = current, upgrade.sequence, upgrade.production_version
        _log.info("the upgrade is %s: writing rows of %s", upgrade.state, ", ".join(one.version for one in current))
        return before.keys() - {one.version for one in current}

    def is_in_production(self, version: StreamedVersion) -> bool:
        """Return whether a version is the one in production, as of the last `refresh`."""
        return version.version == self._production_version

    def _follow(
        self, wanted: WrittenVersion, before: dict[str, StreamedVersion], upgrade: Upgrade
    ) -> StreamedVersion | None:
        """Return what writes a version's rows; None for one that cannot be opened and is not in production."""
        known = before.get(wanted.version)
        if known is not None and known.is_complete == wanted.is_complete:
            return known
        try:
            encoder = self._load(wanted) if known is None else known.pipeline.encoder
            return None if encoder is None else self._open_version(encoder, wanted.is_complete)
        except VitrineError as error:
            if wanted.version == upgrade.production_version:
                raise
            _log.warning("no rows of %s are written: %s; `produce upgrade catch-up` writes them", wanted.version, error)
            return known

    def _load(self, wanted: WrittenVersion) -> Encoder | None:
        """Return the encoder of a version; None if the upgrade does not name its checkpoint."""
        if wanted.version == self._encoder.version:
            return self._encoder
        if wanted.encoder is None:
            _log.warning("no rows of %s are written: `produce upgrade start` had no --former-encoder", wanted.version)
            return None
        encoder = load(wanted.encoder)
        require_version(wanted.encoder, encoder.version, wanted.version)
        return encoder

    def _require_candidate(self, upgrade: Upgrade) -> None:
        """Raise EncoderMismatchError unless the stream's encoder is the candidate and its rows are kept.

        Its rows alone are written if the upgrade does not name the checkpoint of the encoder in production.
        """
        version = self._encoder.version
        if version != upgrade.candidate_version or upgrade.state is State.RETIRING:
            raise EncoderMismatchError(
                f"encoder {upgrade.production_version} is in production, the stream's is {version}; prepare it "
                "with `produce upgrade start` and `produce upgrade advance`, or stream with the one in production"
            )
