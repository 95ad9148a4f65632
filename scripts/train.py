"""One experiment: validate on folds, refit on all of them, look at the test rows once. `--help` explains every setting.

Exit codes: 0 done · 2 a bad config or bad input, told in one message · 130 interrupted · 1 anything else.
"""

from __future__ import annotations

from pipeline import console
from pipeline.ranks import leads
from pipeline.settings import Settings

_FEW_ROWS = 8  # as many as a truth table shows


def train(settings: Settings, overrides: list[str]) -> None:
    from pipeline import workbench  # late: the config is checked before what it needs is loaded
    from pipeline.boundary import can_show, truth_table

    run = workbench.train(settings, overrides)
    if leads():
        if can_show(run.outcome) and len(run.outcome.data) <= _FEW_ROWS:
            console.say(truth_table(run.outcome))
        console.say(console.summary(run.outcome.result, settings.output, run.hint))


if __name__ == "__main__":
    console.leave(console.main(train))
