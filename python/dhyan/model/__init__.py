"""A Batch in, loss and gradients, or one step of decoding, out."""
