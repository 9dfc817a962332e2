"""A model that steps in, hypotheses with their weights out: beam search, constraints, sampling, and their options."""
