"""Which of several processes that train one run together this is."""

from __future__ import annotations

import os


def leads() -> bool:
    """Whether this process speaks for the run (records, prints, writes), rather than helping another to train it.

    The variables are those that Lightning, torchrun and SLURM's launchers set; without any, a process is alone.
    """
    ranks = (os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"))
    return all(rank in ("", "0") for rank in ranks)
