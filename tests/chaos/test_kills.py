"""A refresh that is killed at any instant, again and again, ends where an undisturbed one does.

A home goes through kill after kill: each time a refresh is started, killed in the middle of one
asset, and started again. Which asset, and when, is drawn from a seed; all assets get their turn.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.assets import tiny_home
from tests.chaos.conftest import Amount
from tests.chaos.undisturbed import ASSETS, Undisturbed, check_same
from tests.chaos.victim import Victim, batches


@dataclass
class Killed:
    """A home under fire: kills by asset, and where its processes write down what they compute."""

    home: Path
    computed: Path
    kills: Counter[str] = field(default_factory=Counter)


def computed_twice(computed: Path) -> int:
    """How many results were computed more than once, each time counted."""
    times = Counter((kind, each) for kind, ids in batches(computed) for each in ids)
    return sum(count - 1 for count in times.values())


def kill_in(killed: Killed, asset: str, seconds: float, dice: random.Random) -> bool:
    """Start a refresh and kill it in the middle of an asset; whether it came to that asset."""
    victim = Victim(killed.home, killed.computed)
    skipped = dice.choice((0, 0, 1, 2))
    for kind, artifact, _ in victim.events():
        if kind == "starts" and artifact.split("/")[0] == asset:
            if skipped and asset in tiny_home.SHARDED:
                skipped -= 1
                continue
            # Beyond the end of an artifact there is its publishing, and the asset after it.
            time.sleep(dice.uniform(0, 1.2 * seconds))
            victim.kill()
            killed.kills[asset] += 1
            return True
    assert victim.end() == 0
    return False


def test_killed_refreshes_end_where_an_undisturbed_one_does(
    undisturbed: Undisturbed, amount: Amount, tmp_path: Path, say: Callable[[str], None]
):
    dice = random.Random("kills")
    total: Counter[str] = Counter()
    twice = 0
    while total.total() < amount.kills:
        home = tiny_home.copy_home(undisturbed.pristine, tmp_path / f"home-{total.total()}")
        killed = Killed(home, tmp_path / f"computed-{total.total()}")
        few = min(len(ASSETS), amount.kills - total.total())
        for asset in sorted(dice.sample(ASSETS, few), key=ASSETS.index):
            kill_in(killed, asset, undisturbed.seconds[asset], dice)
        assert Victim(home, killed.computed).end() == 0
        check_same(home, undisturbed.outcome)
        again = computed_twice(killed.computed)
        assert again <= killed.kills.total() * undisturbed.largest_batch
        total, twice = total + killed.kills, twice + again
        say(f"{total.total()} kills survived, {twice} results computed twice")
    say(f"kills by asset: {dict(total)}")
