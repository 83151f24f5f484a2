from . import loading as loading
from . import warmup as warmup
