"""A table of parts by name: scorings, cells, normalisers. Installed packages may add to one by an entry point."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

from dhyan.errors import unknown_name

Part = TypeVar("Part")


class Registry(dict[str, Part]):
    """Name -> part, in the order of registration.

    what: how an error calls the name ("attention is 'dott', expected one of: dot, ..."). group: the entry-point group
    in which installed packages list parts of their own, or none. An entry has the name of its part; loading it, a
    module or something in one, must register that part. It is loaded when its name is first looked up, or listed.
    """

    def __init__(self, what: str, group: str | None = None) -> None:
        super().__init__()
        self.what, self.group = what, group
        self._loaded: set[tuple[str, str]] = set()  # name and value of entry points

    def add(self, name: str, part: Part) -> Part:
        """Make a part known under a name; the same class may come again, as a notebook's cell does.

        Errors: ValueError for a name that a part of another class has.
        """
        if name in self and _origin(self[name]) != _origin(part):
            taken = ".".join(_origin(self[name]))
            raise ValueError(f"{self.what}: the name {name!r} is that of {taken}, expected one that is free")
        self[name] = part
        return part

    def names(self) -> list[str]:
        """All names, those of installed packages among them."""
        self._load(None)
        return list(self)

    def find(self, name: Any) -> Part:
        """The part of that name. ValueError for an unknown one, nearest names first."""
        if isinstance(name, str):  # a list of a configuration file has no hash
            if name not in self:
                self._load(name)
            if name in self:
                return self[name]
        raise unknown_name(self.what, name, self.names())

    def _load(self, name: str | None) -> None:
        """Load the entry points of this name, None: all. One that fails is a warning, no more."""
        if self.group is None:
            return
        from importlib import metadata  # here: few processes ask, and it costs as much as half of `dhyan --version`

        for entry in metadata.entry_points(group=self.group):
            if (entry.name, entry.value) in self._loaded or entry.name in self or name not in (None, entry.name):
                continue
            self._loaded.add((entry.name, entry.value))
            where = f"{self.what}: the entry point {entry.name} = {entry.value} of {self.group}"
            try:
                entry.load()
            except Exception as error:
                warnings.warn(f"{where} cannot be loaded: {type(error).__name__}: {error}", RuntimeWarning, 3)
                continue
            if entry.name not in self:
                warnings.warn(f"{where} registered nothing of that name", RuntimeWarning, 3)


def _origin(part: object) -> tuple[str, str]:
    cls = part if isinstance(part, type) else type(part)
    return cls.__module__, cls.__qualname__
