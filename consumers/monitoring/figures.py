"""What the checks found, as JSON: times in ISO 8601, ages in seconds, null where there is nothing."""

import json
import math
from dataclasses import asdict
from datetime import datetime
from typing import Any


def as_json(found: Any) -> str:
    """A dataclass of figures as JSON, its `breaches` (one line each) among them."""
    return json.dumps(
        plain(asdict(found) | {"breaches": found.breaches}), ensure_ascii=False, indent=2, allow_nan=False
    )


def plain(value: Any) -> Any:
    """Figures as JSON has them: a figure that is undefined, or without bound, is null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value
