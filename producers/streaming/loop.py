"""The stream: messages are read, their rows written online at once, committed offline at intervals, then acknowledged.

If a step fails on a batch of products, each product is tried alone; one that fails alone is a dead letter. Clicks are
processed one by one. If the online store or a table does not answer, the run ends, because no message is to blame.

During an encoder upgrade the same messages give rows of both versions. Before each commit the run follows the upgrade
to its current state.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from feature_repo import schema
from feature_repo.arrow import timestamps
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import quarantine
from producers.streaming import product_rows
from producers.streaming.row_writer import RowWriter
from producers.streaming.source import PRODUCTS, LostReplyError, MessageSource, StreamMessage, describe_failure
from producers.streaming.streamed_versions import StreamedVersion, StreamedVersions

_log = logging.getLogger(__name__)

STEP = "stream"
"""Name of this step in the quarantine."""
WAIT_SECONDS = 0.1
"""How long a read waits for new messages, in seconds. The stop and commit conditions are checked between reads."""
MAX_UNCOMMITTED_ROWS = 20_000
"""This many rows are committed before the interval is over, because they are in memory."""
MAX_TIMESTAMP_US = timestamps.datetime_to_ticks(datetime.max.replace(tzinfo=UTC), "us")
"""The latest timestamp that a Python datetime can hold."""
BAD_MESSAGE_ID = "the message id is not a timestamp; let Redis assign the ids"


@dataclass
class StreamCounts:
    """What a run has done so far."""

    messages: int = 0
    """Messages processed, the redelivered and the rejected ones included."""
    redelivered: int = 0
    """Messages that an earlier run may have processed."""
    added: Counter[str] = field(default_factory=Counter)
    """Rows added to the offline tables by commits: table name to number; 0 if the table had all rows already."""
    dead_letters: Counter[str] = field(default_factory=Counter)
    """Messages that were rejected: reason to number. Those that the source itself rejected are not counted."""
    quarantined: Counter[str] = field(default_factory=Counter)
    """Repaired values and unusable images: reason to number."""
    not_of_other_version: Counter[str] = field(default_factory=Counter)
    """Messages without rows of the encoder version that is not in production: reason to number. `produce upgrade
    catch-up` writes these rows."""
    duplicate_clicks: int = 0
    """Clicks that were skipped because they were already in the state of their user."""

    def __str__(self) -> str:
        lines = [f"{self.messages:,} messages, {self.redelivered:,} of them redelivered"]
        lines += [f"  {table}: {rows:,} rows added" for table, rows in sorted(self.added.items())]
        lines += [f"  dead letters {number:,}: {reason}" for reason, number in self.dead_letters.most_common()]
        lines += [f"  quarantined {number:,}: {reason}" for reason, number in self.quarantined.most_common()]
        lines += [
            f"  without rows of the other encoder version {number:,}: {reason}"
            for reason, number in self.not_of_other_version.most_common()
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Stream:
    """One run of the stream: everything that it needs, and the loop. `open_stream` opens one."""

    settings: Settings
    """The deployment."""
    source: MessageSource
    """Where the messages come from."""
    versions: StreamedVersions
    """Turn messages into rows."""
    writer: RowWriter
    """Writes rows online, and offline at each commit."""
    clock: Callable[[], datetime]
    """Returns the current time, with a time zone."""
    batch_size: int = 64
    """Most messages of each kind (products, clicks) in one read."""
    commit_seconds: float = 20.0
    """Seconds from one commit to the next; a commit is earlier if MAX_UNCOMMITTED_ROWS are reached."""
    on_first_feature: Callable[[float], None] = lambda seconds: None
    """Called for each product version with vectors, except those of redelivered messages, with the seconds from the
    arrival of its message until its features were online."""
    clock_delay: timedelta = timedelta(0)
    """How far the clocks are behind the newest row of the tables. It is added to the arrival time of each message,
    which becomes the created timestamp of its rows, so that they do not lose against older rows. `clock` adds it
    already."""
    on_commit: Callable[[StreamCounts], None] = lambda counts: None
    """Called after each commit with the totals so far, also if nothing was committed. The object goes on changing."""

    def run(self, should_stop: Callable[[], bool]) -> StreamCounts:
        """Process messages until `should_stop` returns True, then commit and acknowledge what was read.

        Messages that were delivered before and not acknowledged are processed first, also if `should_stop` is True from
        the beginning. A message that cannot be processed becomes a dead letter, and the run goes on.

        Args:
            should_stop: asked before each read of new messages; a read waits at most WAIT_SECONDS for them.

        Returns:
            What this run has done, the last commit included.

        Raises:
            VitrineError: the source, the online store or a table does not answer. Messages that are not acknowledged
                are delivered again to the next run.
        """
        counts, to_acknowledge = StreamCounts(), list[StreamMessage]()
        self._process_pending(to_acknowledge, counts)
        last_commit = time.monotonic()
        while not should_stop():
            has_lost_reply = False
            try:
                to_acknowledge += self._process(self.source.read_new(self.batch_size, WAIT_SECONDS), counts)
            except LostReplyError:
                has_lost_reply = True
            is_due = time.monotonic() - last_commit >= self.commit_seconds
            if has_lost_reply or is_due or self.writer.uncommitted_rows >= MAX_UNCOMMITTED_ROWS:
                self._commit(to_acknowledge, counts)
                # Before newer messages: the clicks of a user must be processed in order.
                self._process_pending(to_acknowledge, counts)
                last_commit = time.monotonic()
        self._commit(to_acknowledge, counts)
        return counts

    def _process_pending(self, to_acknowledge: list[StreamMessage], counts: StreamCounts) -> None:
        """Process the messages that were delivered and not acknowledged. `to_acknowledge` must be empty."""
        for messages in self.source.read_pending(self.batch_size):
            to_acknowledge += self._process(messages, counts)
            if self.writer.uncommitted_rows >= MAX_UNCOMMITTED_ROWS:
                self._commit(to_acknowledge, counts)

    def _commit(self, to_acknowledge: list[StreamMessage], counts: StreamCounts) -> None:
        for dropped in self.versions.refresh():
            self.writer.drop_version(dropped)
        counts.added.update(self.writer.commit())
        for version in self.versions.current:
            if version.interests is not None:
                version.interests.mark_committed()
        self.source.acknowledge(to_acknowledge)
        to_acknowledge.clear()
        self.on_commit(counts)

    def _process(self, messages: Sequence[StreamMessage], counts: StreamCounts) -> list[StreamMessage]:
        """Write the rows of messages online, and return the messages to acknowledge after the next commit."""
        counts.messages += len(messages)
        counts.redelivered += sum(message.is_redelivered for message in messages)
        rejected = [(message, BAD_MESSAGE_ID) for message in messages if message.arrived_us > MAX_TIMESTAMP_US]
        valid = [message for message in messages if message.arrived_us <= MAX_TIMESTAMP_US]
        delay_us = self.clock_delay // timedelta(microseconds=1)
        if delay_us:
            valid = [replace(message, arrived_us=message.arrived_us + delay_us) for message in valid]
        first, *others = self.versions.current
        for group in product_rows.split_repeats([message for message in valid if message.kind == PRODUCTS]):
            rejected += self._process_products(group, first, counts)
        clicks = [message for message in valid if message.kind != PRODUCTS]
        rejected += self._process_clicks(clicks, first, counts)
        rejected_ids = {(message.kind, message.id) for message, _ in rejected}
        accepted = [message for message in valid if (message.kind, message.id) not in rejected_ids]
        for other in others:
            self._write_other_version(accepted, other, counts)
        for message, reason in rejected:
            self.source.reject(message, reason)
            counts.dead_letters[reason] += 1
        return [message for message in messages if (message.kind, message.id) not in rejected_ids]

    def _process_products(
        self, messages: list[StreamMessage], version: StreamedVersion, counts: StreamCounts
    ) -> list[tuple[StreamMessage, str]]:
        """Write the rows of product messages online, and return the rejected messages with their reasons.

        Of the version in production, which is the first one, the catalogue and the quarantine are written too.
        """
        try:
            result = product_rows.build_rows(messages, version.pipeline, self.clock())
        except VitrineError:
            raise
        except Exception as error:
            if len(messages) == 1:
                return [(messages[0], describe_failure(error))]
            return [rejected for message in messages for rejected in self._process_products([message], version, counts)]
        is_first = version is self.versions.current[0]
        for table, rows in result.tables.items():
            if is_first or table != schema.CATALOGUE_TABLE:
                self.writer.write(table, rows, is_in_production=self.versions.is_in_production(version))
        if version.interests is not None:
            version.interests.add_product_versions(result.tables)
        if not is_first:
            return list(result.rejected)
        counts.quarantined.update(note.reason for note in result.notes)
        quarantine.add(self.settings, STEP, result.notes, self.clock())
        if schema.EMBEDDING_TABLE in result.tables:
            rejected_ids = {message.id for message, _ in result.rejected}
            accepted = [message for message in messages if message.id not in rejected_ids]
            self._record_first_features(result.tables[schema.EMBEDDING_TABLE], accepted)
        return list(result.rejected)

    def _process_clicks(
        self, clicks: list[StreamMessage], version: StreamedVersion, counts: StreamCounts
    ) -> list[tuple[StreamMessage, str]]:
        """Write the rows of click messages online, and return the rejected messages with their reasons."""
        if not clicks or version.interests is None:
            return []
        result = version.interests.apply_clicks(clicks, self.clock())
        self.writer.write(schema.INTEREST_TABLE, result.rows, is_in_production=self.versions.is_in_production(version))
        if version is self.versions.current[0]:
            counts.duplicate_clicks += result.duplicates
        return list(result.rejected)

    def _write_other_version(
        self, messages: list[StreamMessage], version: StreamedVersion, counts: StreamCounts
    ) -> None:
        """Write rows of the version that is not in production, for messages that gave rows of the one in production."""
        left_out: list[tuple[StreamMessage, str]] = []
        for group in product_rows.split_repeats([message for message in messages if message.kind == PRODUCTS]):
            left_out += self._process_products(group, version, counts)
        left_out += self._process_clicks([one for one in messages if one.kind != PRODUCTS], version, counts)
        for message, reason in left_out:
            _log.warning("%s %s has no rows of %s: %s", message.kind, message.id, version.version, reason)
            counts.not_of_other_version[reason] += 1

    def _record_first_features(self, rows: pa.Table, messages: Sequence[StreamMessage]) -> None:
        """Record how long each product waited, from the arrival of its message until its features were online.

        Args:
            rows: embedding rows.
            messages: the messages of these rows. A rejected message may lack a product id that is UTF-8.
        """
        online = self.clock()
        redelivered = {message.fields["product_id"].decode() for message in messages if message.is_redelivered}
        table = rows.select([schema.PRODUCT_ID, schema.EVENT_TIMESTAMP, schema.CREATED_TIMESTAMP]).to_pydict()
        seconds = [(online - arrived).total_seconds() for arrived in table[schema.CREATED_TIMESTAMP]]
        for product, waited in zip(table[schema.PRODUCT_ID], seconds, strict=True):
            if product not in redelivered:  # the run that was killed may have written its features already
                self.on_first_feature(waited)
        columns = {**table, "seconds": seconds}
        first_features = pa.table({name: columns[name] for name in schema.PRODUCT_FIRST_FEATURE.names})
        self.writer.write(schema.FIRST_FEATURE_TABLE, first_features.cast(schema.PRODUCT_FIRST_FEATURE))
