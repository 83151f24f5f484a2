"""The curation report: a shard's aggregates, one report model, an HTML and a markdown renderer."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
