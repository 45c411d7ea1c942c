"""Reports as JSON."""

import json
import math
from dataclasses import asdict
from datetime import datetime
from typing import Any


def report_to_json(report: Any, **more: Any) -> str:
    """Return a dataclass and all dataclasses in it as JSON, with datetimes in ISO 8601.

    JSON has no NaN and no infinity: such a number becomes null.

    Args:
        report: The dataclass; its fields become the keys.
        **more: Keys that are added.
    """
    return json.dumps(_to_plain(asdict(report) | more), ensure_ascii=False, indent=2, allow_nan=False)


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value
