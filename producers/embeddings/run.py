"""Encode every catalogue version that an encoder has not encoded yet into `product_embedding`.

A version whose image and title have been encoded before, for whatever product, gets its row without the encoder. A run
may be killed at any time: vectors are in the cache (vector_cache.py) before the rows that need them are committed, a
commit is atomic, and the next run plans from what the tables hold.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo import run_log, schema
from feature_repo.arrow import take
from feature_repo.config import Settings
from feature_repo.distributed import cluster
from feature_repo.errors import ConflictError
from feature_repo.offline import delta, encoder_licence, production, quarantine, training_products
from producers.catalogue import row_hash
from producers.catalogue.row_hash import RowHashes
from producers.embeddings import encoder_check
from producers.embeddings.adapted_vectors import cache_adapted_vectors
from producers.embeddings.existing_rows import KEY, STEP, RowIndices, txn_app_id
from producers.embeddings.plan import NO_ROWS, CatalogueChanges, EncodingPlan, plan_encoding, read_changes
from producers.embeddings.row_builder import RowBuilder
from producers.embeddings.shared_cache import fill_from_rows, is_shared
from producers.embeddings.tower_outputs import TowerOutputs, cache_kept_outputs, open_caches
from producers.embeddings.vector_cache import VectorCache
from producers.encoders import Encoder, load
from producers.encoders.checkpoint_version import read_training_products, read_version
from producers.encoders.image_loader import open_decoding_pool
from producers.encoders.licence import read_licence
from producers.encoders.pipeline import EncodedChunk, encode_chunks
from producers.encoders.stage_seconds import ZERO_SECONDS, StageSeconds

ROWS_PER_COMMIT = 4096
COLUMNS = [*KEY, "title", "image", "image_bytes", "image_hash", "image_stat"]


@dataclass(frozen=True)
class EmbeddingSummary:
    """What one run of `embed_catalogue` did."""

    encoder_version: str
    """`name@fingerprint`."""
    encoded: int
    """Rows written to `product_embedding`, those with reused vectors included."""
    existing: int
    """Catalogue rows that needed none: they have their embedding row already, or a later correction replaces them."""
    images: int
    """Images that the encoder gave a vector."""
    titles: int
    """Titles that the encoder gave a vector."""
    reused: int
    """Images and titles whose vector came from the cache, or from an earlier row of this run with the same content."""
    unusable: dict[str, int]
    """Number of quarantined images, titles and products by reason, the most frequent first."""
    seconds: StageSeconds
    """Seconds of each stage, summed over all chunks."""
    production_version: str | None = None
    """The encoder version that readers get."""

    def __str__(self) -> str:
        lines = [
            f"{self.encoder_version}: {self.encoded:,} products encoded, {self.existing:,} up to date",
            f"  {self.images:,} images and {self.titles:,} titles encoded, {self.reused:,} vectors reused",
        ]
        if self.encoded:
            lines.append(f"  {self.seconds}")
        if self.production_version not in (None, self.encoder_version):
            lines.append(f"  readers get {self.production_version}; `produce upgrade` changes that")
        return "\n".join(lines + [f"  quarantined {rows:,}: {reason}" for reason, rows in self.unusable.items()])


def embed_catalogue(
    settings: Settings,
    encoder: str,
    *,
    now: datetime,
    progress: Callable[[int, int], None],
    accept_changed: bool = False,
    encoder_version: str | None = None,
    ray: str | None = None,
    first: Sequence[pc.Expression] = (),
    only: pc.Expression | None = None,
    step: str = STEP,
) -> EmbeddingSummary:
    """Write an embedding row for every catalogue version that has no current one of this encoder.

    The first encoder of a store is in production. Readers do not get rows of another one before `produce upgrade`
    has put it into production.

    A catalogue version is a product at an event time. Its embedding row is current if it is the last created one of
    this encoder and has the same image and title. Products whose image and title both give no vector get no row; the
    reasons go to the quarantine. If nothing is new, nothing is written but the run log. A run that is killed keeps what
    it has committed, and the next one does the rest.

    Args:
        settings: the deployment.
        encoder: checkpoint directory or hub name.
        now: the created timestamp of the rows, with a time zone.
        progress: called after each commit with the number of catalogue rows done and the number to do.
        accept_changed: if the encoder of this name is not that of the last run, encode everything again with it.
        encoder_version: the version that the encoder must have; None takes any.
        ray: address of a Ray cluster that decodes and encodes: "local", "auto", "head:6379" or "ray://head:10001".
            None uses this machine.
        first: filters of catalogue rows that are encoded before the others, one filter after the other.
        only: filter of the catalogue rows that are encoded; None encodes all.
        step: name of the run in the run log, and of its lock.

    Returns:
        What was written and reused.

    Raises:
        NotFoundError: there is no catalogue, or no such encoder.
        EncoderMismatchError: the encoder has another version than `encoder_version`; or the encoder of this name has
            changed, and `accept_changed` is False.
        ConflictError: another process runs this step, or other runs of this encoder committed first, again and again.
        UnavailableError: the cluster, the hub or the database of the run log cannot be reached.
        VitrineError: the encoder cannot be loaded. For tables on disk it is loaded only if the catalogue has changed.
    """
    with run_log.record_run(settings, step, now=now) as run:
        if not delta.exists(settings.table(schema.CATALOGUE_TABLE)):
            delta.open_dataset(settings.table(schema.CATALOGUE_TABLE))  # raises, before the encoder is loaded
        version = read_version(encoder)
        # A run without new rows ends without the model: torch and transformers take seconds to import.
        is_finished = not is_shared(settings) and read_changes(settings, version) is None
        model = None if is_finished else load(encoder)
        version = version if model is None else model.version
        encoder_check.require_version(encoder, version, encoder_version)
        if not accept_changed:
            encoder_check.require_unchanged(settings, version)
        run.set_model(version)
        in_production = production.record_first_version(settings.offline, version, now)
        training_products.record(settings, version, read_training_products(Path(encoder)), now)
        encoder_licence.record(settings, version, read_licence(encoder), now)
        if model is None:
            return _summarize_nothing(settings, run, version, in_production)
        if ray is not None:
            cluster.connect(ray)
        with open_caches(settings.local, model) as (cache, outputs):
            fill_from_rows(settings, cache, version)
            work = _EmbeddingRun(settings, model, cache, outputs, now, run, progress, ray and encoder)
            attempts, written = 0, 0
            while attempts < delta.ATTEMPTS:
                try:
                    for where in (*first, None) if only is None else (only,):
                        while not work.encode_pass(where):
                            pass
                    return replace(work.summarize(), production_version=in_production)
                except delta.CommitConflictError:
                    # Another run of this encoder has committed rows: plan again; the vectors are cached.
                    attempts = 1 if work.written > written else attempts + 1
                    written = work.written
    raise ConflictError(
        f"table `{schema.EMBEDDING_TABLE}`: other runs committed first {delta.ATTEMPTS} times; run this again"
    )


def _summarize_nothing(
    settings: Settings, run: run_log.RunRecorder, version: str, production_version: str
) -> EmbeddingSummary:
    """Return the summary of a run that finds every catalogue row encoded, and record what it read."""
    catalogue = settings.table(schema.CATALOGUE_TABLE)
    run.add_input(schema.CATALOGUE_TABLE, delta.latest_version(catalogue))
    existing = delta.open_dataset(catalogue).count_rows()
    return EmbeddingSummary(version, 0, existing, 0, 0, 0, {}, ZERO_SECONDS, production_version)


@dataclass
class _EmbeddingRun:
    """The state of one run of `embed_catalogue`: what it works with, and what it has done so far."""

    settings: Settings
    model: Encoder
    cache: VectorCache
    outputs: TowerOutputs | None
    """Outputs of the encoder's towers; None unless it is a `TowerEncoder`."""
    now: datetime
    """The created timestamp of the rows."""
    run: run_log.RunRecorder
    progress: Callable[[int, int], None]
    """Called with the rows done and the rows to do."""
    ray_encoder: str | None
    """Where the actors of the Ray cluster load the encoder from; None if this machine encodes."""
    written: int = 0
    """Embedding rows committed."""
    existing: int = 0
    """Catalogue rows that needed no embedding row."""
    counts: Counter[str] = field(default_factory=Counter)
    """The sums of `BuiltRows.counts`."""
    unusable: Counter[str] = field(default_factory=Counter)
    """Contents and products without a vector, by reason."""
    seconds: StageSeconds = ZERO_SECONDS
    changed_images: set[bytes] = field(default_factory=set)
    """`RowBuilder.changed_images` of all passes."""
    without_vector: RowHashes = field(default_factory=NO_ROWS.copy)
    """`BuiltRows.without_vector` of all chunks: rows that another pass need not try again."""
    txn_version: int = 0
    """Transaction version of the table after this run's last commit."""

    def summarize(self) -> EmbeddingSummary:
        """Return what the run has done so far."""
        return EmbeddingSummary(
            self.model.version,
            encoded=self.written,
            existing=self.existing,
            images=self.counts["pictures"],
            titles=self.counts["titles"],
            reused=self.counts["reused"],
            unusable=dict(self.unusable.most_common()),
            seconds=self.seconds,
        )

    def encode_pass(self, where: pc.Expression | None) -> bool:
        """Encode and commit what is new; return whether nothing is left.

        Rows are left if they share an image whose file has changed meanwhile; another pass encodes each by itself.

        Args:
            where: filter of the catalogue rows; None encodes all, and stores that this version of the catalogue is
                done.

        Raises:
            CommitConflictError: another run of this encoder has committed rows meanwhile.
        """
        path = self.settings.table(schema.EMBEDDING_TABLE)
        self.txn_version = delta.txn_version(path, txn_app_id(self.model.version))
        changes = read_changes(self.settings, self.model.version)
        if changes is None:
            catalogue = self.settings.table(schema.CATALOGUE_TABLE)
            self.run.add_input(schema.CATALOGUE_TABLE, delta.latest_version(catalogue))
            self.existing = self.existing or delta.open_dataset(catalogue).count_rows()
            return True
        self.run.add_input(schema.CATALOGUE_TABLE, changes.version)
        if where is not None:
            changes = replace(changes, new=changes.new.filter(where))
        cache_kept_outputs(changes.new, self.cache, self.outputs)
        cache_adapted_vectors(changes.new, self.cache, self.model)
        plan = plan_encoding(
            self.settings,
            changes.new,
            self.model.version,
            self.cache,
            has_images=self.model.has_images,
            changed_images=self.changed_images,
            without_vector=self.without_vector,
        )
        total = len(plan.reused) + len(plan.encoded)
        if where is None:
            self.existing = self.existing or changes.rows - total - self.written - len(self.without_vector)
        builder = RowBuilder(self.model, self.cache, self.now, self.outputs, self.settings.pictures)
        for done in self._commit_chunks(changes, plan, builder):
            self.progress(done, total)
        self.changed_images |= builder.changed_images
        if builder.deferred:
            return False
        if where is not None:
            return True
        self.txn_version = delta.append_if_version(
            path,
            schema.PRODUCT_EMBEDDING.empty_table(),
            txn_app_id(self.model.version),
            self.txn_version,
            changes.markers,
        )
        return True

    def _commit_chunks(self, changes: CatalogueChanges, plan: EncodingPlan, builder: RowBuilder) -> Iterator[int]:
        """Commit first the rows that need no encoder; yield the number of rows done after each commit."""
        done = 0
        for chunk in _read_chunks(changes, plan.reused, [name for name in COLUMNS if name != "image_bytes"]):
            done += self._commit(builder, chunk, None)
            yield done
        if not len(plan.encoded):
            return
        pending: deque[tuple[pa.Table, bool]] = deque()
        with self._encode(_select_contents(changes, plan, pending)) as stream:
            for encoded in chain(stream, [None]):
                while pending and (encoded is None or not pending[0][1]):
                    done += self._commit(builder, pending.popleft()[0], None)
                    yield done
                if encoded is not None:
                    done += self._commit(builder, pending.popleft()[0], encoded)
                    yield done

    @contextmanager
    def _encode(self, chunks: Iterator[pa.Table]) -> Iterator[Iterator[EncodedChunk]]:
        """Encode chunks, in their order, on this machine or on the cluster."""
        pictures = self.settings.pictures
        if self.ray_encoder is not None:
            from producers.encoders import on_ray

            with closing(on_ray.encode_chunks(chunks, self.model, self.ray_encoder, pictures=pictures)) as stream:
                yield stream
            return
        with (
            open_decoding_pool() as pool,
            closing(encode_chunks(chunks, self.model, pool, pictures=pictures)) as stream,
        ):
            yield stream

    def _commit(self, builder: RowBuilder, chunk: pa.Table, encoded: EncodedChunk | None) -> int:
        """Write the quarantine, the vectors and then the rows of a chunk; return the number of catalogue rows.

        In this order a run that is killed in between writes the same again and adds nothing twice.
        """
        start = time.perf_counter()
        built = builder.build(chunk, encoded)
        refused = [quarantine.RejectedRow(u.product_id, u.column, u.reason, u.value) for u in built.unusable]
        quarantine.add(self.settings, STEP, refused, self.now)
        builder.cache_vectors(built)
        if len(built.rows):
            path, app_id = self.settings.table(schema.EMBEDDING_TABLE), txn_app_id(self.model.version)
            self.txn_version = delta.append_if_version(path, built.rows, app_id, self.txn_version)
        reasons = Counter(refusal.reason for refusal in refused)
        self.written += len(built.rows)
        self.without_vector = np.concatenate([self.without_vector, built.without_vector])
        self.counts.update(built.counts)
        self.unusable.update(reasons)
        self.run.add_counts(rows=len(built.rows), **built.counts)
        self.run.add_quarantined(reasons)
        write = time.perf_counter() - start
        self.seconds += (encoded.seconds if encoded else ZERO_SECONDS) + StageSeconds(write=write)
        return len(chunk)


def _read_chunks(changes: CatalogueChanges, rows: RowIndices, columns: list[str]) -> Iterator[pa.Table]:
    """Yield some rows of `changes.new` in their order, ROWS_PER_COMMIT at a time.

    The column `title_hash` is added, null where the title is.

    Args:
        changes: the catalogue rows.
        rows: ascending row numbers in `changes.new`; may be empty, then nothing is yielded.
        columns: columns to read.
    """
    batch_rows = take.IMAGE_ROWS if "image_bytes" in columns else take.BATCH_ROWS
    for chunk in take.take_chunks(changes.new, rows, columns, ROWS_PER_COMMIT, batch_rows=batch_rows):
        yield chunk.append_column("title_hash", row_hash.hash_contents(chunk["title"]))


def _select_contents(
    changes: CatalogueChanges, plan: EncodingPlan, pending: deque[tuple[pa.Table, bool]]
) -> Iterator[pa.Table]:
    """Yield of each chunk the rows that have to be encoded, with null for an image or a title that has not.

    The whole chunk is appended to `pending`, without `image_bytes`, and with whether any of its rows was yielded.
    """
    start = 0
    for chunk in _read_chunks(changes, plan.encoded, COLUMNS):
        is_image_encoded, is_title_encoded = (
            flags[start : start + len(chunk)] for flags in (plan.is_image_encoded, plan.is_title_encoded)
        )
        start += len(chunk)
        selected = chunk
        for name, flags in (
            ("title", is_title_encoded),
            ("image", is_image_encoded),
            ("image_bytes", is_image_encoded),
        ):
            index = selected.schema.get_field_index(name)
            selected = selected.set_column(index, name, pc.if_else(pa.array(flags), chunk[name], None))
        kept = chunk.drop_columns(["image_bytes"])
        kept = kept.append_column("is_image_encoded", pa.array(is_image_encoded))
        kept = kept.append_column("is_title_encoded", pa.array(is_title_encoded))
        is_encoded = is_image_encoded | is_title_encoded
        pending.append((kept, bool(is_encoded.any())))
        if is_encoded.any():
            yield selected.filter(pa.array(is_encoded))
