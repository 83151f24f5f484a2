"""The number formats of matrix products that a user may ask for."""

from typing import Literal, get_args

Precision = Literal["auto", "bfloat16", "float32"]
"""`auto` is bfloat16 where `hardware.has_bfloat16` says so and float32 elsewhere. Features made in
either have a mean cosine of .998 or more, which is taken for the same, so fingerprints hold the
word `auto`: machines of different kinds can work on one home in turn without making each other's
artifacts anew."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
