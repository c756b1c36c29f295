"""A trained model put to work: the compiled index."""
