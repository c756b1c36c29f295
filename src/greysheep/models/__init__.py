"""The models, each imported on first use: `__init__.pyi` has the classes, `known.py` their names."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
