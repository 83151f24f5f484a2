"""How good a ranking is, against what costs less: baselines and the honest comparison."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
