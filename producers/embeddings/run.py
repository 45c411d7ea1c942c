"""The catalogue to `product_embedding`: every version that this encoder has not seen, in commits of bounded size.

A version whose picture and title have been encoded before, under whatever product, gets its row without the encoder.
A run can be killed at any moment: vectors are kept (contents.py) before the rows that need them are committed, a
commit is whole or nothing, and the next run plans from what is there.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import run_log, schema
from feature_repo.arrow import take
from feature_repo.config import Settings
from feature_repo.distributed import cluster
from feature_repo.errors import VitrineError
from feature_repo.offline import delta, quarantine
from producers.catalogue import row_hash
from producers.embeddings import vector_cache
from producers.embeddings.existing_rows import KEY, STEP, RowIndices, txn_app_id
from producers.embeddings.plan import CatalogueChanges, EncodingPlan, plan_encoding, read_changes
from producers.embeddings.row_builder import RowBuilder
from producers.embeddings.vector_cache import VectorCache
from producers.encoders import Encoder, load
from producers.encoders.image_loader import open_decoding_pool
from producers.encoders.pipeline import ZERO_SECONDS, EncodedChunk, StageSeconds, encode_chunks

ROWS_PER_COMMIT = 4096
COLUMNS = [*KEY, "title", "image", "image_bytes", "image_hash", "image_stat"]


@dataclass(frozen=True)
class EmbeddingSummary:
    """What came of one run."""

    encoder_version: str
    encoded: int
    """Rows that were made."""
    known: int
    """Catalogue versions that had their row before."""
    pictures: int
    titles: int
    """Contents that went through the encoder, the unusable included."""
    reused: int
    """Contents of the rows made that did not, because they had been encoded before."""
    unusable: dict[str, int]
    """Pictures and titles without a vector, by reason; the product went on with the other modality."""
    seconds: StageSeconds
    """Where the time went."""

    def __str__(self) -> str:
        lines = [
            f"{self.encoder_version}: {self.encoded:,} products encoded, {self.known:,} known already",
            f"  {self.pictures:,} pictures and {self.titles:,} titles encoded, {self.reused:,} known by content",
        ]
        if self.encoded:
            lines.append(f"  {self.seconds}")
        return "\n".join(lines + [f"  quarantined {rows:,}: {reason}" for reason, rows in self.unusable.items()])


def embed_catalogue(
    settings: Settings,
    encoder: str,
    *,
    now: datetime,
    progress: Callable[[int, int], None],
    accept_changed: bool = False,
    ray: str | None = None,
) -> EmbeddingSummary:
    """Encode every catalogue version whose last created row is not of this encoder.

    Args:
        settings: the deployment.
        encoder: checkpoint directory or hub name.
        now: the created timestamp.
        progress: told how many of how many products are done.
        accept_changed: go on under a new version where the encoder of this name is another than in the last run.
        ray: address of the Ray cluster that decodes and encodes, as `on_ray.cluster.connect` takes it; this machine
            does if not given.

    Raises:
        VitrineError: there is no catalogue, the encoder cannot be opened or has changed, another process is doing
            the same, or there is no such cluster.
    """
    with run_log.record_run(settings, STEP, now=now) as run:
        if not delta.exists(settings.table(schema.CATALOGUE_TABLE)):
            delta.open_dataset(settings.table(schema.CATALOGUE_TABLE))  # says what to do first
        model = load(encoder)
        if not accept_changed:
            _refuse_changed(settings, model.version)
        run.set_model(model.version)
        if ray is not None:
            cluster.connect(ray)
        with vector_cache.open_cache(settings.offline / vector_cache.FOLDER, model.version, model.dim) as store:
            work = _Work(settings, model, store, now, run, progress, encoder if ray is not None else None)
            for _ in range(delta.ATTEMPTS):
                try:
                    complete = False
                    while not complete:
                        complete = work.encode_pass()
                    return work.done()
                except delta.CommitConflict:
                    continue  # another run of this encoder committed rows: plan again; what is encoded is kept
    raise VitrineError(f"table `{schema.EMBEDDING_TABLE}`: others were quicker {delta.ATTEMPTS} times; run this again")


@dataclass(frozen=True)
class EmbeddingEstimate:
    """What a run of `embed_catalogue` would do now."""

    encoder_version: str
    rows: int
    """Rows that would be added to `product_embedding`."""
    stored: int
    """Catalogue versions that have their row already."""
    images: int
    titles: int
    """Distinct contents that would be passed to the encoder. Some of the images may be unreadable or damaged."""

    def __str__(self) -> str:
        return (
            f"{self.encoder_version}: {self.rows:,} rows to add to {schema.EMBEDDING_TABLE}, {self.stored:,} stored "
            f"before\n  {self.images:,} images and {self.titles:,} titles to encode"
        )


def estimate_embeddings(settings: Settings, encoder: str, *, accept_changed: bool = False) -> EmbeddingEstimate:
    """Return what `embed_catalogue` would add and encode. Writes nothing, and decodes no image.

    Args:
        settings: the deployment.
        encoder: checkpoint directory or hub name.
        accept_changed: as for `embed_catalogue`.

    Raises:
        VitrineError: there is no catalogue, or the encoder cannot be opened or has changed.
    """
    catalogue = delta.open_dataset(settings.table(schema.CATALOGUE_TABLE))
    model = load(encoder)
    if not accept_changed:
        _refuse_changed(settings, model.version)
    changes = read_changes(settings, model.version)
    if changes is None:
        return EmbeddingEstimate(model.version, rows=0, stored=catalogue.count_rows(), images=0, titles=0)
    folder = settings.offline / vector_cache.FOLDER
    with ExitStack() as stack:
        if not folder.exists():  # opening the cache would create it
            folder = Path(stack.enter_context(TemporaryDirectory()))
        cache = stack.enter_context(vector_cache.open_cache(folder, model.version, model.dim))
        plan = plan_encoding(settings, changes.new, model.version, cache, images=model.has_images)
    rows = len(plan.reused) + len(plan.encoded)
    return EmbeddingEstimate(
        model.version,
        rows=rows,
        stored=changes.rows - rows,
        images=int(plan.asks_image.sum()),
        titles=int(plan.asks_title.sum()),
    )


def _refuse_changed(settings: Settings, version: str) -> None:
    """Raise a `VitrineError` if the last run knew another encoder under this name."""
    name = version.rpartition("@")[0]
    before = [
        run.model
        for run in run_log.read_runs(settings, step=STEP)
        if run.model and run.model.rpartition("@")[0] == name
    ]
    if before and before[-1] != version:
        raise VitrineError(
            f"encoder `{name}` is not what it was: {before[-1]} in the last run, {version} now; if it was trained anew "
            "give its directory another name, or say --accept-changed to encode everything as a new version"
        )


@dataclass
class _Work:
    """One run, pass by pass."""

    settings: Settings
    model: Encoder
    store: VectorCache
    now: datetime
    run: run_log.RunRecorder
    progress: Callable[[int, int], None]
    on_ray: str | None
    """From where the actors of the cluster open the encoder; null where this machine encodes."""
    made: int = 0
    known: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    unusable: Counter[str] = field(default_factory=Counter)
    seconds: StageSeconds = ZERO_SECONDS
    turn: int = 0

    def done(self) -> EmbeddingSummary:
        return EmbeddingSummary(
            self.model.version,
            encoded=self.made,
            known=self.known,
            pictures=self.counts["pictures"],
            titles=self.counts["titles"],
            reused=self.counts["reused"],
            unusable=dict(self.unusable.most_common()),
            seconds=self.seconds,
        )

    def encode_pass(self) -> bool:
        """Encode and commit what is not yet; whether nothing is left.

        What waits for a picture that then changed is left for another pass.
        """
        path = self.settings.table(schema.EMBEDDING_TABLE)
        self.turn = delta.txn_version(path, txn_app_id(self.model.version))
        state = read_changes(self.settings, self.model.version)
        if state is None:
            version = delta.latest_version(self.settings.table(schema.CATALOGUE_TABLE))
            self.run.add_input(schema.CATALOGUE_TABLE, version)
            self.known = self.known or delta.open_dataset(self.settings.table(schema.CATALOGUE_TABLE)).count_rows()
            return True
        self.run.add_input(schema.CATALOGUE_TABLE, state.version)
        todo = plan_encoding(self.settings, state.new, self.model.version, self.store, images=self.model.has_images)
        total = len(todo.reused) + len(todo.encoded)
        self.known = self.known or state.rows - total
        assembly = RowBuilder(self.model, self.store, self.now)
        for so_far in self._passes(state, todo, assembly):
            self.progress(so_far, total)
        if assembly.left:
            return False
        self.turn = delta.append_if_version(
            path,
            schema.PRODUCT_EMBEDDING.empty_table(),
            txn_app_id(self.model.version),
            self.turn,
            state.marks,
        )
        return True

    def _passes(self, state: CatalogueChanges, todo: EncodingPlan, assembly: RowBuilder) -> Iterator[int]:
        """First what needs no encoder; yields how many rows are done."""
        done = 0
        columns = [name for name in COLUMNS if name != "image_bytes"]
        for chunk in _chunks(state, todo.reused, columns):
            done += self._commit(assembly, chunk, None)
            yield done
        if not len(todo.encoded):
            return
        waiting: deque[tuple[pa.Table, bool]] = deque()
        with self._embedded(_asked(state, todo, waiting)) as stream:
            for made in chain(stream, [None]):
                while waiting and (made is None or not waiting[0][1]):
                    done += self._commit(assembly, waiting.popleft()[0], None)
                    yield done
                if made is not None:
                    done += self._commit(assembly, waiting.popleft()[0], made)
                    yield done

    @contextmanager
    def _embedded(self, chunks: Iterator[pa.Table]) -> Iterator[Iterator[EncodedChunk]]:
        """What comes of chunks, in their order, from this machine or from the cluster."""
        if self.on_ray is not None:
            from producers.encoders import on_ray

            with closing(on_ray.encode_chunks(chunks, self.model, self.on_ray, self.now)) as stream:
                yield stream
            return
        with open_decoding_pool() as pool, closing(encode_chunks(chunks, self.model, pool, self.now)) as stream:
            yield stream

    def _commit(self, assembly: RowBuilder, chunk: pa.Table, made: EncodedChunk | None) -> int:
        """Write the rows of a chunk; returns how many it had.

        Quarantine first, then vectors, then rows: a run killed in between does it again and adds nothing twice."""
        start = time.perf_counter()
        ready = assembly.rows(chunk, made)
        refused = [quarantine.RejectedRow(u.product_id, u.column, u.reason, u.value) for u in ready.unusable]
        quarantine.add(self.settings, STEP, refused, self.now)
        assembly.keep(ready)
        if len(ready.rows):
            self.turn = delta.append_if_version(
                self.settings.table(schema.EMBEDDING_TABLE), ready.rows, txn_app_id(self.model.version), self.turn
            )
        reasons = Counter(refusal.reason for refusal in refused)
        self.made += len(ready.rows)
        self.counts.update(ready.counts)
        self.unusable.update(reasons)
        self.run.add_counts(rows=len(ready.rows), **ready.counts)
        self.run.add_quarantined(reasons)
        write = time.perf_counter() - start
        self.seconds += (made.seconds if made else ZERO_SECONDS) + StageSeconds(write=write)
        return len(chunk)


def _chunks(state: CatalogueChanges, rows: RowIndices, columns: list[str]) -> Iterator[pa.Table]:
    """Rows of the new versions, ROWS_A_COMMIT at a time, with the hash of their titles."""
    held: list[pa.RecordBatch] = []
    for batch in take.take_batches(state.new, rows, columns) if len(rows) else ():
        held.append(batch)
        if sum(map(len, held)) >= ROWS_PER_COMMIT:
            whole = pa.Table.from_batches(held)
            while len(whole) >= ROWS_PER_COMMIT:
                yield _titled(whole.slice(0, ROWS_PER_COMMIT))
                whole = whole.slice(ROWS_PER_COMMIT)
            held = whole.to_batches()
    if held:
        yield _titled(pa.Table.from_batches(held))


def _titled(chunk: pa.Table) -> pa.Table:
    return chunk.append_column("title_hash", row_hash.hash_contents(chunk["title"]))


def _asked(state: CatalogueChanges, todo: EncodingPlan, waiting: deque[tuple[pa.Table, bool]]) -> Iterator[pa.Table]:
    """What of each chunk has to go through the encoder; the chunk itself waits, without the bytes of its pictures."""
    start = 0
    for chunk in _chunks(state, todo.encoded, COLUMNS):
        image, title = (asks[start : start + len(chunk)] for asks in (todo.asks_image, todo.asks_title))
        start += len(chunk)
        asked = chunk
        for name, asks in (("title", title), ("image", image), ("image_bytes", image)):
            place = asked.schema.get_field_index(name)
            asked = asked.set_column(place, name, pc.if_else(pa.array(asks), chunk[name], None))
        kept = chunk.drop_columns(["image_bytes"])
        kept = kept.append_column("asks_image", pa.array(image)).append_column("asks_title", pa.array(title))
        some = image | title
        waiting.append((kept, bool(some.any())))
        if some.any():
            yield asked.filter(pa.array(some))
