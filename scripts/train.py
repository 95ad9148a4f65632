"""One experiment: validate on folds, refit on all of them, look at the test rows once. `--help` explains every setting.

Exit codes: 0 done · 2 a bad config or bad input, told in one message · 130 interrupted · 1 anything else.
"""

from __future__ import annotations

import sys

from pipeline import console
from pipeline.ranks import leads
from pipeline.settings import Settings

_FEW_ROWS = 8  # as many as a truth table shows


def train(settings: Settings, overrides: list[str]) -> None:
    from pipeline import engines, experiment, export, tracking  # late: the config is checked before they are needed
    from pipeline.boundary import can_show, truth_table
    from pipeline.data import load

    export.demand_packages(settings)
    tracker = tracking.Tracker(settings)
    engines.create(settings)  # torch takes seconds to import, and meanwhile the store is opened
    events = tracking.event_files(settings)
    with tracker.trial(overrides=overrides) as run:
        data = load(settings.data, settings.seed)
        console.introduce(data, settings)
        with events as write, console.Progress(settings) as progress:
            observer = console.combine(run.on_epoch, write, progress)
            validated = experiment.validate(settings, data, observer)
            console.deliver(validated)  # whatever fails later, this result is on disk
            outcome = experiment.finish(validated, observer)
        try:
            console.deliver(outcome, overrides)
        finally:  # a result whose model cannot be exported is a result
            run.finish(outcome)
    if leads():
        if can_show(outcome) and len(outcome.data) <= _FEW_ROWS:
            console.say(truth_table(outcome))
        console.say(console.summary(outcome.result, settings.output, tracker.hint))


if __name__ == "__main__":
    sys.exit(console.main(train))
