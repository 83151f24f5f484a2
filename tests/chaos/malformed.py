"""A corpus of malformed files, drawn from a seed. Of each it is known by how it was made what has
to become of it: good rows, bad rows by their reason, or what is said of the file as a whole."""

import itertools
import random
from pathlib import Path

from tests.chaos.malformed_files import CONTENTS, Expected, Place
from tests.chaos.malformed_names import NAMES

KINDS = (*CONTENTS, *NAMES)


def write_corpus(folder: Path, count: int, seed: int) -> list[Expected]:
    """Write at least `count` malformed files, every kind in turn; what becomes of each."""
    dice = random.Random(seed)
    made: list[Expected] = []
    for number, kind in enumerate(itertools.cycle(dice.sample(KINDS, len(KINDS)))):
        if len(made) >= count:
            break
        made += kind(Place(folder, f"{number:03d}_{kind.__name__}", dice))
    return made
