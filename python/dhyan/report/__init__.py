"""Translations in, evidence out: figures of a test set, and one HTML page that needs no network."""
