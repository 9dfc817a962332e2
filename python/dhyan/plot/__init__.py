"""Weights and tokens in, a picture out: heat-maps, curves, cards."""

from __future__ import annotations

from .curves import bleu_by_length as bleu_by_length
from .curves import save_bleu_by_length as save_bleu_by_length
from .heatmap import heatmap as heatmap
from .heatmap import save_heatmap as save_heatmap
from .heatmap import terminal_heatmap as terminal_heatmap
