"""Whole tasks: trained, tested, and set beside published figures."""
