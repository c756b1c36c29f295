"""Tensors only: the expert bank, its gates, the adaptive weights and the likelihood."""
