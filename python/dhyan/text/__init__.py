"""Text files in, a Batch of ids out."""
