"""The cards as HTML pages without external assets: one for each view, and an index."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined

from consumers.cards.card import FeatureCard
from consumers.ranking.lift import Comparison
from feature_repo.files.atomic_write import replace_atomically

INDEX = "index.html"


@dataclass(frozen=True)
class CardContext:
    """How the cards were made."""

    project: str
    """Name of the deployment's project."""
    store: Path
    """The deployment's feature_store.yaml."""
    now: datetime
    """The time that ages are relative to, with a time zone."""
    version: str
    """Version of Vitrine."""


def write_pages(cards: Sequence[FeatureCard], folder: Path, context: CardContext) -> list[Path]:
    """Write a page for each card, named after its view, and INDEX. Return the files.

    Files of these names are replaced; others in the folder stay. The folder is created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = Environment(
        loader=FunctionLoader(lambda name: resources.files("consumers.cards").joinpath(name).read_text()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bytes": format_bytes, "percent": format_percent, "moment": _format_moment}
    environment.globals |= {"interval": _format_interval, "make_bar": make_bar_scale}
    pages = {INDEX: environment.get_template("index.html").render(cards=cards, context=context)}
    template = environment.get_template("card.html")
    for card in cards:
        pages[f"{card.view}.html"] = template.render(card=card, context=context)
    for name, page in pages.items():
        with replace_atomically(folder / name) as unfinished:
            unfinished.write_text(page, encoding="utf-8")
    return [folder / name for name in pages]


def format_bytes(count: float | None) -> str:
    """Return a number of bytes with its unit and three digits: 512 B, 1.5 kB, 20.3 MB, 5,000 TB; a dash for None."""
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:  # three digits of more would be 1e+03
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB" if count < 999.5 else f"{count:,.0f} TB"


def format_percent(share: float | None) -> str:
    """Return a share as a percentage; a dash for None. One that is not 0 or 1 is never shown as 0% or 100%."""
    if share is None:
        return "–"
    percent = 100 * share
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    return f"{percent:.3g}%"


@dataclass(frozen=True)
class Bar:
    """Where an interval lies on a scale, in percent of its width. The arguments are kept as attributes."""

    left: float
    width: float
    middle: float
    zero: float


def make_bar_scale(comparisons: Sequence[Comparison]) -> Callable[[Comparison], Bar | None]:
    """Return the function that places a comparison's interval on the scale that all of them and zero fit in.

    It returns None for an interval that is not finite.
    """
    finite = [bound for each in comparisons for bound in each.interval if np.isfinite(bound)]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    width = (high - low) or 1.0

    def place(comparison: Comparison) -> Bar | None:
        left, right = comparison.interval
        if not np.isfinite(left) or not np.isfinite(right):
            return None
        positions = (100 * (value - low) / width for value in (left, right, comparison.lift, 0.0))
        start, end, middle, zero = positions
        return Bar(start, end - start, middle, zero)

    return place


def _format_interval(comparison: Comparison) -> str:
    """Return the interval with four decimals; a dash if it is not finite."""
    low, high = comparison.interval
    return f"[{low:+.4f}, {high:+.4f}]" if np.isfinite([low, high]).all() else "–"


def _format_moment(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"
