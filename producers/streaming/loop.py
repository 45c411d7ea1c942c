"""Messages taken, their rows online at once, committed within the minute, acknowledged then.

A message on which a step fails is tried alone, and is a dead letter if it fails alone too (clicks are taken one by one
from the start); where the store or a table does not answer, the run ends, for no message is to blame.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa

from feature_repo import schema
from feature_repo.arrow import timestamps
from feature_repo.config import Settings
from feature_repo.errors import VitrineError
from feature_repo.offline import quarantine
from producers.streaming import product_rows
from producers.streaming.clicks import InterestUpdater
from producers.streaming.product_rows import ProductPipeline
from producers.streaming.row_writer import RowWriter
from producers.streaming.source import PRODUCTS, LostReplyError, MessageSource, StreamMessage, describe_failure

STEP = "stream"
WAIT = 0.1
"""Seconds for which new messages are waited for, before looking whether to commit or to end."""
COMMIT_ROWS = 20_000
"""Rows that are committed before their time: they are in memory."""
LAST = timestamps.datetime_to_ticks(datetime.max, "us")
"""The last moment that Python's calendar has."""
NO_ARRIVAL = "its id in the stream is no time: let the stream give the ids"


@dataclass
class StreamCounts:
    """What a run has done."""

    messages: int = 0
    again: int = 0
    """Messages that may have been worked on by a run before."""
    added: Counter[str] = field(default_factory=Counter)
    """Rows committed, by table."""
    refused: Counter[str] = field(default_factory=Counter)
    """Dead letters, by reason."""
    mended: Counter[str] = field(default_factory=Counter)
    """Values mended and pictures unusable, by reason: they are in the quarantine."""
    known_clicks: int = 0

    def __str__(self) -> str:
        lines = [f"{self.messages:,} messages, {self.again:,} of them again"]
        lines += [f"  {table}: {rows:,} rows added" for table, rows in sorted(self.added.items())]
        lines += [f"  dead letters {number:,}: {reason}" for reason, number in self.refused.most_common()]
        lines += [f"  quarantined {number:,}: {reason}" for reason, number in self.mended.most_common()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Stream:
    """One run."""

    settings: Settings
    source: MessageSource
    makers: ProductPipeline
    rows: RowWriter
    clicks: InterestUpdater
    clock: Callable[[], datetime]
    batch: int = 64
    """Messages of a micro-batch."""
    every: float = 20.0
    """Seconds between commits."""
    first_feature: Callable[[float], None] = lambda seconds: None
    """Is told the time to first feature of each product."""
    progress: Callable[[StreamCounts], None] = lambda counts: None
    """Is told after each commit."""

    def run(self, stop: Callable[[], bool]) -> StreamCounts:
        """Go on until told to stop; what has been taken then is committed and acknowledged.

        Raises:
            VitrineError: the source, the online store or a table does not answer. What is not acknowledged comes again.
        """
        counts, taken = StreamCounts(), list[StreamMessage]()
        self._take_pending(taken, counts)
        committed = time.monotonic()
        while not stop():
            lost = False
            try:
                taken += self._work(self.source.take(self.batch, WAIT), counts)
            except LostReplyError:
                lost = True
            if lost or time.monotonic() - committed >= self.every or self.rows.waiting >= COMMIT_ROWS:
                self._commit(taken, counts)
                self._take_pending(taken, counts)  # before what came later: a user's clicks have an order
                committed = time.monotonic()
        self._commit(taken, counts)
        return counts

    def _take_pending(self, taken: list[StreamMessage], counts: StreamCounts) -> None:
        """Take in what was delivered and never worked on, when all that was worked on is acknowledged."""
        for messages in self.source.pending(self.batch):
            taken += self._work(messages, counts)
            if self.rows.waiting >= COMMIT_ROWS:
                self._commit(taken, counts)

    def _commit(self, taken: list[StreamMessage], counts: StreamCounts) -> None:
        counts.added.update(self.rows.commit())
        self.clicks.committed()
        self.source.done(taken)
        taken.clear()
        self.progress(counts)

    def _work(self, messages: Sequence[StreamMessage], counts: StreamCounts) -> list[StreamMessage]:
        """Write what messages say online; gives back those that are to be acknowledged when it is committed."""
        counts.messages += len(messages)
        counts.again += sum(message.again for message in messages)
        refused = [(message, NO_ARRIVAL) for message in messages if message.arrived > LAST]
        timely = [message for message in messages if message.arrived <= LAST]
        for group in product_rows.split_repeats([message for message in timely if message.kind == PRODUCTS]):
            refused += self._make_products(group, counts)
        clicks = [message for message in timely if message.kind != PRODUCTS]
        if clicks:
            made = self.clicks.make(clicks, self.clock())
            self.rows.put(schema.INTEREST_TABLE, made.rows)
            counts.known_clicks += made.known
            refused += made.refused
        for message, reason in refused:
            self.source.refuse(message, reason)
            counts.refused[reason] += 1
        gone = {(message.kind, message.id) for message, _ in refused}
        return [message for message in messages if (message.kind, message.id) not in gone]

    def _make_products(self, messages: list[StreamMessage], counts: StreamCounts) -> list[tuple[StreamMessage, str]]:
        try:
            made = product_rows.build_rows(messages, self.makers, self.clock())
        except VitrineError:
            raise
        except Exception as error:
            if len(messages) == 1:
                return [(messages[0], describe_failure(error))]
            return [one for message in messages for one in self._make_products([message], counts)]
        for table, rows in made.tables.items():
            self.rows.put(table, rows)
        self.clicks.learn(made.tables)
        counts.mended.update(note.reason for note in made.notes)
        quarantine.add(self.settings, STEP, made.notes, self.clock())
        if schema.EMBEDDING_TABLE in made.tables:
            gone = {message.id for message, _ in made.refused}
            self._tell(made.tables[schema.EMBEDDING_TABLE], [message for message in messages if message.id not in gone])
        return list(made.refused)

    def _tell(self, rows: pa.Table, messages: Sequence[StreamMessage]) -> None:
        """How long the products waited for their features, from their message's arrival until these were online.

        Args:
            messages: those that the rows came of: others may have no product id, or none that is UTF-8.
        """
        online = self.clock()
        again = {message.fields["product_id"].decode() for message in messages if message.again}
        table = rows.select([schema.PRODUCT_ID, schema.EVENT_TIMESTAMP, schema.CREATED_TIMESTAMP]).to_pydict()
        seconds = [(online - came).total_seconds() for came in table[schema.CREATED_TIMESTAMP]]
        for product, waited in zip(table[schema.PRODUCT_ID], seconds, strict=True):
            if product not in again:  # it may have had them before, from the run that died
                self.first_feature(waited)
        columns = {**table, "seconds": seconds}
        told = pa.table({name: columns[name] for name in schema.PRODUCT_FIRST_FEATURE.names})
        self.rows.put(schema.FIRST_FEATURE_TABLE, told.cast(schema.PRODUCT_FIRST_FEATURE))
