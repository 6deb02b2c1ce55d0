"""`ore`, but an engine that died comes back after 50 ms: for benchmarks that kill it a hundred times.

The pause before a restart grows up to half a minute otherwise, so that a model that cannot live does not keep a machine
busy.
"""

from ore.backends.local.engine_process import EngineProcess
from ore.cli import main

EngineProcess.__init__.__kwdefaults__["backoff"] = (0.05,)

if __name__ == "__main__":
    main()
