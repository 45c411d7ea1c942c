"""Options of the gates: the values that pass, and the log on which both versions are compared."""

from dataclasses import dataclass
from pathlib import Path

from feature_repo.table_format import DEFAULT_FORMAT, TableFormat


@dataclass(frozen=True)
class GateLimits:
    """The value at which each gate passes, inclusive."""

    min_coverage: float = 0.999
    """Share of the rows of the version in production that the candidate must have, in each table."""
    min_overlap: float = 0.1
    """Share of the nearest products that both versions must agree on."""
    min_tag_agreement: float = 0.8
    """Share of the products that must keep the value of each tag."""
    max_hit_rate_loss: float = 0.02
    """How much lower the next-click hit rate may be."""
    max_auc_loss: float = 0.002
    """How much lower the AUC may be, at the lower bound of its interval."""


@dataclass(frozen=True)
class ClickLogOptions:
    """The log on which both versions are compared."""

    impressions: Path
    """The file."""
    service: str = "ranking"
    """The feature service with the ranker's features."""
    seeds: int = 2
    """Rankers that are trained for each version."""
    replicates: int = 200
    """Bootstrap draws."""
    table_format: TableFormat = DEFAULT_FORMAT
    """How the file is written: encoding, separator, names of columns, time zone."""
