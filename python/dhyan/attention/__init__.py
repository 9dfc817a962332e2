"""Query and memory in, context and weights out: scorings, windows, normalisers, heads."""
