"""The far end of the PyTorch engine, as `python -m` starts it: sets how torch's threads wait, then loads it.

Threads that wait for each other by spinning take long for a token where another program wants the same cores: 814 ms
and more instead of 147 on two busy ones.
"""

import os

from ore.backends.local.far_end import main

if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ore.backends.local.torch.worker import Parameters, serve

    main(Parameters, serve)
