"""Saved selections: run them again, and list the products that came and went since the last run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from consumers.search.selection import SearchResult
from feature_repo.config import Settings
from feature_repo.errors import CorruptDataError, NotFoundError
from feature_repo.index import saved_searches
from feature_repo.index.filters import ProductFilter
from feature_repo.index.saved_searches import SavedSearch
from feature_repo.schema import PRODUCT_ID


@dataclass(frozen=True)
class SelectionChanges:
    """What came and went between two runs of a selection."""

    since: str
    """Time of the earlier run."""
    came: tuple[str, ...]
    """Product ids, best first."""
    went: tuple[str, ...]
    """Product ids, best first at the earlier run."""
    former_encoder: str | None = None
    """The encoder of the earlier run, if it was another one: products then also come and go because of that."""

    def __str__(self) -> str:
        """Return a line with both counts, then one with up to 20 ids that came and one with up to 20 that went."""
        lines = [f"since {self.since}: {len(self.came):,} came, {len(self.went):,} went"]
        if self.former_encoder is not None:
            lines[0] += f"; the earlier run was with the encoder {self.former_encoder}"
        for name, ids in (("came", self.came), ("went", self.went)):
            if ids:
                lines.append(f"  {name}: {' '.join(ids[:20])}" + f" and {len(ids) - 20:,} more" * (len(ids) > 20))
        return "\n".join(lines)


def save_selection(
    settings: Settings,
    name: str,
    result: SearchResult,
    options: Mapping[str, Any],
    now: datetime,
    *,
    encoder_version: str,
) -> SelectionChanges | None:
    """Save a selection under a name. Return what changed since the last run; None if there was none.

    Args:
        settings: the deployment.
        name: letters, digits, `.`, `_` and `-`.
        result: the selection.
        options: beside the sentence and the filter, as JSON values.
        now: with a time zone.
        encoder_version: of the index that was searched.

    Raises:
        UsageError: the name has other characters.
    """
    ids = tuple(result.products[PRODUCT_ID].to_pylist())
    try:
        before = saved_searches.read_search(settings.local, name)
    except NotFoundError:
        before = None
    where = asdict(result.where) | {"tags": dict(result.where.tags)}
    search = SavedSearch(
        name,
        result.sentence.text,
        {"where": where, **options},
        ids,
        saved_searches.make_run_time(now),
        encoder_version,
    )
    saved_searches.write_search(settings.local, search)
    return None if before is None else compare_selection(before, ids, encoder_version)


def compare_selection(before: SavedSearch, product_ids: Sequence[str], encoder_version: str) -> SelectionChanges:
    """Return what came and went since a saved search was last run.

    Args:
        before: the saved search.
        product_ids: of the new run, best first.
        encoder_version: of the index that was searched now.
    """
    earlier, later = set(before.product_ids), set(product_ids)
    return SelectionChanges(
        before.run_at,
        tuple(one for one in product_ids if one not in earlier),
        tuple(one for one in before.product_ids if one not in later),
        before.encoder_version if before.encoder_version != encoder_version else None,
    )


def read_selection(settings: Settings, name: str) -> tuple[str, ProductFilter, dict[str, Any]]:
    """Return sentence, filter and further options of a saved selection.

    Raises:
        UsageError: the name has other characters than letters, digits, `.`, `_` and `-`.
        NotFoundError: no selection is saved under this name.
        CorruptDataError: its file is damaged.
    """
    search = saved_searches.read_search(settings.local, name)
    try:
        options = dict(search.options)
        where = options.pop("where")
        lists = {name: tuple(where[name]) for name in ("categories", "brands")}
        return search.sentence, ProductFilter(**where | lists), options
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptDataError(f"the saved search {name!r} is damaged ({error!r}); save it again") from error
