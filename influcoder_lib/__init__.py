"""The method of Influcoder in plain Python: it knows nothing of Dagster or MLflow.

The packages in which models run load the modules of their `__init__.pyi` on first use: torch and
what builds on it take seconds to import, and most commands compute nothing.
"""

import os

# A thread that waits for another spins at first, for milliseconds: beside a busy process it keeps
# the core from whom it waits for, and two threads are 3 to 10 times as slow. Some microseconds cost
# nothing where all is quiet. libgomp reads it when torch is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
