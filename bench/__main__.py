"""Several benches, one after another: `python -m bench speed` and `python -m bench tables`."""

import argparse
import subprocess
import sys

BENCHES = {
    "speed": ("gradients", "embedding", "search", "pipeline", "storage", "refresh"),
    "tables": ("fidelity", "toxicity", "attribution", "curation", "calibration", "scaling"),
}


def main() -> None:
    """Run every bench of a kind in a process of its own, with the other arguments given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=BENCHES)
    given, others = parser.parse_known_args()
    failed = []
    for name in BENCHES[given.kind]:
        print(f"\n## bench.{name}\n", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}", *others]).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"these failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
