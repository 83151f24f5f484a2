"""All benches, one after another: `python -m bench`."""

import subprocess
import sys

NAMES = ("gradients", "embedding", "search", "pipeline", "storage", "refresh")


def main() -> None:
    """Run every bench in a process of its own, with the arguments given to this one."""
    failed = []
    for name in NAMES:
        print(f"\n## bench.{name}\n", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}", *sys.argv[1:]]).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"these failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
