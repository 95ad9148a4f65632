"""The runs table arranged for people: views that MLflow's UI lists under "Views", and that a link opens.

A view holds a filter, an order, columns and charts. MLflow (3.17) keeps it as a tag of the experiment,
`mlflow.sharedViewState.<id>`: {"name", "createdAt", "state"}, where `state` is the page's own state as JSON text. An
MLflow that knows nothing of it ignores the tag, and the link opens the plain table.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.metrics import TASKS, metrics_of

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


SERVER = "http://127.0.0.1:5000"
"""Where `make ui` listens."""

QUESTIONS = {
    "trials": "All trials, best first",
    "studies": "Studies",
    "final": "Final models",
    "tree": "Everything, as a tree",
}
"""Id of a view -> its name in the UI."""

_TAG = "mlflow.sharedViewState."
_LONGEST = 5000  # characters of an experiment's tag
_RUNS = 500  # the newest ones decide which parameters tell trials apart
_PARAMETERS = 8  # columns that fit beside the scores
_ALWAYS = ("activation", "initializer", "optimizer", "optimizer.lr")
_FIRST = (*_ALWAYS, "model.hidden", "model.dropout", "loss", "scheduler", "trainer.batch_size")
_NAME, _CREATED, _DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
_FOLDED = ("cv", "train", "val", "")  # sections that MLflow makes by itself
_DATA = "attributes.`Dataset`"
_WIDTHS = {_NAME: 255, _CREATED: 130, _DURATION: 90, _DATA: 230}


def link(experiment_id: str, server: str = SERVER, view: str = "trials", charts: bool = False) -> str:
    """The page that opens an experiment's runs in a view, as a table or beside their charts."""
    server = re.sub(r"//[^@/]*@", "//", server).rstrip("/")  # what is printed holds no password
    mode = "CHART" if charts else "TABLE"
    page = f"{server}/#/experiments/{experiment_id}/runs"
    return f"{page}?workflowType=machine_learning&compareRunsMode={mode}&viewStateShareKey={view}"


def arrange(client: MlflowClient, experiment_id: str) -> None:
    """Write the views for what the experiment holds now, if that changes them."""
    order = ["attributes.start_time DESC"]
    trials = client.search_runs([experiment_id], "tags.level = 'trial'", max_results=_RUNS, order_by=order)
    primary = next((run.data.tags["primary"] for run in trials if "primary" in run.data.tags), "accuracy")
    chosen = _telling(trials)
    states = {
        "trials": _trials(primary, chosen),
        "studies": _view("tags.level = 'study'", _CREATED, [_metric(f"best/cv/{primary}"), _tag("status"), _DATA]),
        "final": _final(primary, chosen),
        "tree": _view("", _CREATED, [_metric(f"cv/{primary}"), _metric(f"test/{primary}"), _tag("level")]),
    }
    present = client.get_experiment(experiment_id).tags
    for number, (view, state) in enumerate(states.items()):
        tag, text = _TAG + view, _envelope(view, state, number)
        if present.get(tag) != text:
            client.set_experiment_tag(experiment_id, tag, text)


def _envelope(view: str, state: Mapping[str, Any], number: int) -> str:
    """The tag's text, without charts where it would be too long. The UI lists views by age."""
    for left_out in ((), ("compareRunCharts", "compareRunSections")):
        kept = {key: value for key, value in state.items() if key not in left_out}
        text = json.dumps(
            {"name": QUESTIONS[view], "createdAt": -number, "state": json.dumps(kept, separators=(",", ":"))}
        )
        if len(text) <= _LONGEST:
            break
    return text


def _trials(primary: str, chosen: Sequence[str]) -> dict[str, Any]:
    scores = [f"cv/{primary}", f"cv/{primary}_ci_low", f"cv/{primary}_ci_high"]
    columns = [*map(_metric, scores), *map(_param, chosen), _tag("status")]
    view = _view("tags.level = 'trial'", _metric(scores[0]), columns, ascending=_falls(primary))
    return {**view, **_charts(primary, chosen)}


def _final(primary: str, chosen: Sequence[str]) -> dict[str, Any]:
    columns = [_metric(f"test/{primary}"), _metric(f"cv/{primary}"), *map(_param, chosen), _DATA]
    # Not by the test score, which nothing is to be chosen by; and by time MLflow would show them as a tree.
    return _view("tags.level = 'final'", _metric(f"cv/{primary}"), columns, ascending=_falls(primary))


def _falls(metric: str) -> bool:
    """Whether less of it is better."""
    known = [each for task in TASKS for each in metrics_of(task)]
    return any(each.name == metric and each.direction == "minimize" for each in known)


def _view(wanted: str, order: str, columns: Sequence[str], ascending: bool = False) -> dict[str, Any]:
    """The page's state: which runs in which order, and these columns from the left."""
    shown = [_NAME, *columns, _DURATION, _CREATED]
    return {
        "searchFilter": wanted,
        "orderByKey": "attributes.start_time" if order == _CREATED else order,
        "orderByAsc": ascending,
        "selectedColumns": list(columns),
        "columnOrder": shown,
        "columnWidths": {column: _width(column) for column in shown},
        "runsHiddenMode": "FIRST_20_RUNS",
    }


def _width(column: str) -> int:
    """In pixels: enough for the heading, and for four digits of a number."""
    return _WIDTHS.get(column) or max(90, 32 + 6 * len(column.split("`")[1]))


def _charts(primary: str, chosen: Sequence[str]) -> dict[str, Any]:
    """What is drawn beside the runs: scores, what they depend on, learning curves; everything else is folded away."""
    score, curves = f"cv/{primary}", (f"val/{primary}", "val/loss", "train/loss")
    cards: list[dict[str, Any]] = [
        {"type": "BAR", "metricKey": score, "metricSectionId": "score"},
        {"type": "PARALLEL", "selectedParams": list(chosen), "selectedMetrics": [score], "metricSectionId": "score"},
        *({"type": "LINE", "metricKey": name, "metricSectionId": "curves"} for name in curves),
    ]
    common = {"deleted": False, "isGenerated": False, "showAllRuns": True}
    sections = [
        {"uuid": "score", "name": "Score over the folds", "display": True, "columns": 2},
        {"uuid": "curves", "name": "Learning curves", "display": True},
        *({"uuid": name or "others", "name": name, "display": False} for name in _FOLDED),
    ]
    return {
        "compareRunCharts": [{"uuid": str(at), **common, **card} for at, card in enumerate(cards)],
        "compareRunSections": [{"isReordered": True, **section} for section in sections],
        "isAccordionReordered": True,
    }


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _param(name: str) -> str:
    return f"params.`{name}`"


def _tag(name: str) -> str:
    return f"tags.`{name}`"


def _telling(trials: Sequence[Run]) -> list[str]:
    """The parameters that tell trials apart, those that people ask for first.

    Left out is what follows from another one, as the betas do from the choice of an optimizer.
    """
    settings = [run.data.params for run in trials]
    names = sorted({name for one in settings for name in one}, key=lambda name: (_rank(name), name))
    columns: dict[str, tuple[Any, ...]] = {}
    for name in names:
        values = tuple(one.get(name) for one in settings)
        varies = len(set(values)) > 1 and not name.endswith("_target_")
        if name in _ALWAYS or (varies and not any(_follows(values, known) for known in columns.values())):
            columns[name] = values
    return [*columns][:_PARAMETERS]


def _rank(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def _follows(values: Sequence[Any], known: Sequence[Any]) -> bool:
    """Whether each of the known values, some of which occur more than once, goes with one value only."""
    pairs = Counter(zip(known, values, strict=True))
    return len(pairs) == len(set(known)) and (len(pairs) < len(values) or values == known)
