"""What a fault of ours may raise while a request is answered: it ends that request, never the service."""

import polars as pl

FAULTS = (Exception, pl.exceptions.PanicException)
"""A panic of polars is no Exception, and would end the thread that answers all others."""
INTERNAL = "this request could not be answered; the log of the service says why"
"""What a client is told."""
