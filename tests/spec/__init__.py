"""The specification: every op, attention, the model and search as formulas in float64 NumPy, written for reading."""
