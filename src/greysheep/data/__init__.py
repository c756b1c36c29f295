"""Logs: read, clean, split; the named sets and the simulator."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # `datasets`, a public name
