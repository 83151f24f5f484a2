"""The teacher: loss gradients of a decoder, sketched into one feature vector a sample."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
