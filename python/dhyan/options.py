"""Tables of options: frozen dataclasses that say which of their keys was misspelt."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from dhyan.errors import nearest_first

Table = TypeVar("Table", bound="Options")


@dataclass(frozen=True, kw_only=True)
class Options:
    @classmethod
    def from_dict(cls: type[Table], values: dict[str, Any], where: str) -> Table:
        """The table of these values. ValueError for an unknown key, nearest names first."""
        known = [f.name for f in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                near = ", ".join(nearest_first(key, known)[:3])
                raise ValueError(f"{where}: unknown key {key!r}, did you mean: {near}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Field name -> value."""
        return dataclasses.asdict(self)
