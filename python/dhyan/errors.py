"""The exceptions that name what is wrong with a user's data, model folder or numbers.

Each message is one line: what, where, got, expected.
"""


class DataError(ValueError):
    """A text file, or a line of one, that cannot be used."""


class CheckpointError(ValueError):
    """A model folder, or a file of one, that is damaged, hostile or of another version."""


class NumericError(ArithmeticError):
    """NaN or Inf where only finite numbers may stand."""
