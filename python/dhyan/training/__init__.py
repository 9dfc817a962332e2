"""Pairs in, a model folder out."""
