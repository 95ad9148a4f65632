"""A learning rate to begin with: `python scripts/lr_find.py optimizer=sgd model.hidden=[256]`.

Takes the overrides of train.py. Trains all folds for some steps while the rate rises, draws the loss against the rate,
and names the rate where it falls fastest. Exit codes: 0 done · 2 a bad config or bad input, told in one message.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import console
from pipeline.arguments import picture
from pipeline.errors import ConfigError
from pipeline.settings import compose


def find(arguments: argparse.Namespace) -> None:
    """Run the test, draw it, and print what it suggests."""
    if not 0 < arguments.lowest < arguments.highest:
        raise ConfigError(f"--lowest must be above 0 and below --highest; got {arguments.lowest}, {arguments.highest}.")
    if arguments.steps < 10:
        raise ConfigError(f"--steps must be at least 10, for a curve to be seen; got {arguments.steps}.")
    settings = compose(arguments.overrides)
    if settings.engine.name == "numpy":
        raise ConfigError("The test of learning rates runs in engine=lightning; what it finds serves both.")

    from pipeline.data import load
    from pipeline.engines.lightning.range_test import range_test
    from pipeline.figures.learning_rate import loss_against_rate

    data = load(settings.data, settings.seed)
    found = range_test(settings, data, arguments.lowest, arguments.highest, arguments.steps)
    suggestion, smoothed = found.suggestion, found.smoothed
    title = f"{settings.task_name}: {arguments.steps} steps at rising learning rates"
    figure = loss_against_rate(found.rates, smoothed, suggestion, title)
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.picture, bbox_inches="tight")
    print(f"{'rate':>10}{'loss':>10}")
    for step in range(0, arguments.steps, max(1, arguments.steps // 12)):
        print(f"{found.rates[step]:>10.1e}{smoothed[step].mean():>10.4f}")
    print(f"The loss falls fastest at optimizer.lr={suggestion:.2g}; the curve is in {arguments.picture}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings, as train.py takes them")
    parser.add_argument("--lowest", type=float, default=1e-5, help="first rate (%(default)s)")
    parser.add_argument("--highest", type=float, default=1.0, help="last rate (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps (%(default)s)")
    parser.add_argument("--picture", type=picture, default=Path("lr_find.png"), help="where to draw it (%(default)s)")
    return parser.parse_intermixed_args()  # settings may stand on both sides of an option


if __name__ == "__main__":
    console.leave(console.exit_code(lambda: find(_arguments())))
