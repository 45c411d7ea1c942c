"""The lift of the groups of features that need a view, from the JSON that `consume lift --json` wrote."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consumers.cards.card import GroupWorth, LiftSummary
from consumers.ranking.costs import VIEWS
from consumers.ranking.feature_meaning import GROUPS
from consumers.ranking.lift import Comparison
from consumers.ranking.plan import LIGHTGBM
from feature_repo.errors import InvalidInputError, NotFoundError
from feature_repo.files.json_text import parse_json
from feature_repo.schema import INTEREST_TABLE

AFFINITY_VIEWS = (INTEREST_TABLE, "user_product_affinity")
"""Views that the group `affinity` needs beside those of the product."""


@dataclass(frozen=True)
class LiftFile:
    """The figures of one measurement."""

    file: Path
    content: Mapping[str, Any]

    def summarize_view(self, view: str) -> LiftSummary:
        """Return what the groups that need a view are worth; without such a group, `groups` is empty."""
        date = (self.content.get("provenance") or {}).get("date")
        groups = tuple(self._read_group(name) for name in find_groups(view) if name in self.content["verdicts"])
        return LiftSummary(str(self.file), date, self.content["encoder"], groups)

    def _read_group(self, name: str) -> GroupWorth:
        labels = (name, f"{name} over placebo", f"{name}, taken away")
        on_test = [_read_comparison(each) for each in self.content["comparisons"]]
        # Single groups are trees, also if the main ranker is a network.
        whole = [
            each
            for label in labels
            for each in on_test
            if (each.name, each.slice, each.metric, each.model) == (label, "all", "auc", LIGHTGBM)
        ]
        sliced = [_read_comparison(each) for each in self.content.get("group_slices", []) if each["name"] == name]
        verdict = self.content["verdicts"][name]["verdict"]
        return GroupWorth(name, GROUPS.get(name, ""), verdict, (*whole, *sliced))


def find_groups(view: str) -> list[str]:
    """Return the groups of a ranker's features that need a view, those that need nothing else first."""
    groups = [name for name, views in VIEWS.items() if view in views]
    if view in AFFINITY_VIEWS:
        groups.append("affinity")
    return sorted(groups, key=lambda name: VIEWS[name] != (view,))


def read_lift(file: Path) -> LiftFile:
    """Read the JSON of `consume lift`.

    Raises:
        NotFoundError: the file does not exist.
        InvalidInputError: the file is not the JSON of `consume lift`.
    """
    try:
        found = LiftFile(file, parse_json(file.read_text()))
        for name in VIEWS:  # every card reads some of it
            if name in found.content["verdicts"]:
                found._read_group(name)
        found.content["encoder"]
    except FileNotFoundError as error:
        raise NotFoundError(f"{file}: no such file; run `consume lift --impressions LOG --json {file}`") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(
            f"{file}: not the JSON of `consume lift` ({type(error).__name__}: {error}); run it with --json {file}"
        ) from error
    return found


def _read_comparison(each: Mapping[str, Any]) -> Comparison:
    """Return a comparison from its JSON; a null in an interval becomes NaN."""
    values = {"with_features" if name == "with" else name: value for name, value in each.items()}
    for name in ("ci95", "ci95_two_way"):
        low, high = (float("nan") if bound is None else bound for bound in values[name])
        values[name] = (low, high)
    return Comparison(**values)
