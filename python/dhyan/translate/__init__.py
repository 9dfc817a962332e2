"""A model folder and text in, texts with the weights they were read with out."""
