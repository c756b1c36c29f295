"""A fitted model put to work: lists by the million, vectors for other systems, and answers over HTTP."""
