"""Reports as JSON."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np


def report_to_json(report: Any, **more: Any) -> str:
    """Return a dataclass, and all dataclasses in it, as JSON text, indented by 2, without a newline at the end.

    NaN and infinity become null. Characters beyond ASCII are not escaped.

    Args:
        report: the dataclass. The names of its fields become the keys, in their order; properties are left out.
        **more: further keys, after those of the fields. One with the name of a field replaces the field's value.

    Raises:
        TypeError: `report` is no instance of a dataclass, or a value is of a type that `to_json_value` does not
            convert, such as an array or a path.
    """
    return json.dumps(to_json_value(asdict(report) | more), ensure_ascii=False, indent=2, allow_nan=False)


def to_json_value(value: Any) -> Any:
    """Return a value as JSON can hold it; dictionaries, lists and tuples are converted with all that is in them.

    NaN and infinity become None, datetimes ISO 8601 text, NumPy scalars Python values, tuples lists, and keys strings.
    A value of any other type, such as an array or a date, is returned unchanged. `value` itself is not changed.
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
