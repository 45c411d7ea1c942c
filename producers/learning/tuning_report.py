"""What a tuning changed, for its task and for other uses, as text and as a file beside the encoder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_repo.files.atomic_write import replace_atomically
from producers.encoders.tuning.examples import Rows
from producers.encoders.tuning.fit import FitReport
from producers.encoders.tuning.measures import Values, draw_interval

REPORT_FILE = "tuning.md"
"""File beside the checkpoint. The fingerprint of an encoder leaves it out."""
LIFT = (
    "What a ranker gains or loses: `consume lift --impressions LOG --json AFTER.json` in a store with vectors of this "
    "encoder, then `consume proxies BEFORE.json AFTER.json`; or `consume gate` in an upgrade."
)


@dataclass(frozen=True)
class MeasuredUse:
    """A measure of both encoders on the same held-out queries."""

    name: str
    before: float
    after: float
    low: float
    """Lower end of the 95% interval of the difference, by the paired bootstrap."""
    high: float
    queries: int


def compare_values(name: str, before: Values, after: Values, clusters: Rows) -> MeasuredUse | None:
    """Return a measure of both encoders; None if no query has a value.

    Args:
        name: of the measure.
        before: a value for each query, NaN where it has none.
        after: the same by the tuned encoder.
        clusters: what each query belongs to.
    """
    valid = np.isfinite(before) & np.isfinite(after)
    if not valid.any():
        return None
    low, high = draw_interval(before[valid], after[valid], clusters[valid])
    return MeasuredUse(name, float(before[valid].mean()), float(after[valid].mean()), low, high, int(valid.sum()))


@dataclass(frozen=True)
class TuningReport:
    """How a tuning went."""

    checkpoint: str
    """Version of the encoder that was tuned."""
    task: str
    products: int
    """Products with a usable title and image, held-out ones included."""
    left_out: int
    """Products without a title or a usable image."""
    held_out: int
    """Products that were not trained on but measured on."""
    seen: int
    """Of these, the products that the encoder had been trained on before, as far as that is known."""
    fit: FitReport
    uses: tuple[MeasuredUse, ...]

    def __str__(self) -> str:
        steps = f"{self.fit.steps:,} of {self.fit.planned:,} steps"
        resumed = f", continued at step {self.fit.resumed_at:,}" if self.fit.resumed_at else ""
        lines = [
            f"{self.checkpoint} tuned for {self.task} in {steps}{resumed}; {self.products - self.held_out:,} products "
            f"trained on, {self.held_out:,} held out ({self.seen:,} of them known to the encoder), {self.left_out:,} "
            "left out, without a title or a usable image",
        ]
        for use in self.uses:
            lines.append(
                f"{use.name}: {use.before:.3f} before, {use.after:.3f} after, {use.after - use.before:+.3f} "
                f"[{use.low:+.3f}, {use.high:+.3f}], {use.queries:,} queries"
            )
        return "\n".join(lines)

    def write(self, out: Path) -> None:
        """Write the report beside a checkpoint."""
        rows = [
            f"| {use.name} | {use.before:.3f} | {use.after:.3f} | {use.after - use.before:+.3f} "
            f"[{use.low:+.3f}, {use.high:+.3f}] | {use.queries:,} |"
            for use in self.uses
        ]
        text = "\n".join(
            [
                f"# {self.checkpoint}, tuned for {self.task}",
                "",
                str(self).split("\n")[0] + ".",
                "",
                "On held-out products; differences with the 95% interval of the paired bootstrap.",
                "",
                "| measure | before | after | difference | queries |",
                "| --- | --- | --- | --- | --- |",
                *rows,
                "",
                LIFT,
                "",
            ]
        )
        with replace_atomically(out / REPORT_FILE) as unfinished:
            unfinished.write_text(text)
