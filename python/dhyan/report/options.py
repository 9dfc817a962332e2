"""How sentences of a report are chosen, by name."""

from __future__ import annotations

CHOICES = ("failures", "worst", "longest", "best", "first")
