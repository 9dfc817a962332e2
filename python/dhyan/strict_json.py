"""JSON as every reader takes it: without NaN and Infinity, which Python's own would write."""

from __future__ import annotations

import json
import math
from typing import Any


def plain(value: Any) -> Any:
    """The value with None in place of every float that is not finite, in dictionaries and lists too."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dumps(value: Any) -> str:
    """One line of JSON; numbers that are not finite are null."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
