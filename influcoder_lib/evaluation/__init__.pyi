from . import held_out as held_out
