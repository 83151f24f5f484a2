from . import distillation as distillation
from . import encoder as encoder
from . import kernel as kernel
from . import static as static
from . import training as training
