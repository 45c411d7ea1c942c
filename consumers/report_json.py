"""Reports as JSON."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np


def report_to_json(report: Any, **more: Any) -> str:
    """Return a dataclass, and all dataclasses in it, as JSON.

    Args:
        report: The dataclass; its fields become the keys.
        **more: Keys that are added.
    """
    return json.dumps(to_json_value(asdict(report) | more), ensure_ascii=False, indent=2, allow_nan=False)


def to_json_value(value: Any) -> Any:
    """Return a value as JSON can hold it.

    NaN and infinity become None, datetimes ISO 8601 text, NumPy scalars Python numbers, keys strings.
    """
    if isinstance(value, dict):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
