"""An evaluation as a page for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.compare.wording import small
from pipeline.figures.style import metric_label
from pipeline.report.page import Card, Page, Table, picture, render
from pipeline.report.words import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.deployment.evaluation import Evaluation

_FEATURES = 30


def page(found: Evaluation, called: str, figures: Mapping[str, Figure], commands: Mapping[str, str]) -> str:
    """HTML. called: the model, as the user did. figures: as `evaluation.figures_of` draws them."""
    primary, score = found.primary, found.scores[found.primary]
    label = metric_label(primary)
    said = found.card["test"].get(primary)
    cards = [
        Card(f"{label}, new rows", number(score.value), f"95 % interval {number(score.low)} … {number(score.high)}")
    ]
    if said is not None:
        cards.append(Card(f"{label}, test rows", number(said), "as the run recorded it"))
    trained = found.card["data"]
    return render(
        Page(
            title=f"{found.data.name}: {label} {number(score.value)}",
            question=f"How well does the model of {called} do on rows that it has not seen?",
            asked={
                "New rows": [f"{len(found.data):,} rows of {found.data.origin}"],
                "Trained on": [f"{trained['training_rows']:,} rows of {trained['name']}"],
                "Networks": [str(found.card["networks"])],
            },
            cards=cards,
            scores=_scores(found),
            caveats=[found.verdict(), found.drifted(), *_CAVEATS],
            ranking=("Drift", _drift(found)),
            pictures={"": [picture(*pair) for pair in figures.items()]},
            commands=commands,
            settings=_card(found),
            footer=f"Fingerprints: new rows {found.data.fingerprint}, training data {trained['fingerprint']}.",
        )
    )


_CAVEATS = (
    "Intervals tell how far chance in drawing these rows goes, not how another training would have come out.",
    "Rows that had a part in training, or settings chosen by a look at these scores, would flatter the model.",
)


def _scores(found: Evaluation) -> Table:
    head = ("metric", "new rows", "95 % interval", "test rows then", "mean of folds then")
    lines = []
    for name, score in found.scores.items():
        then = [number(found.card[kind].get(name, float("nan"))) for kind in ("test", "cv")]
        lines.append((metric_label(name), number(score.value), f"{number(score.low)} … {number(score.high)}", *then))
    return Table("All metrics", head, lines, text_columns=(0,))


def _drift(found: Evaluation) -> Table:
    head = ("feature", "distance", "unit", "p (Holm)", "then → now")
    if found.drifts is None:
        return Table("Distance from the training rows", head, [], note=found.drifted())
    features = found.drifts.features
    lines = [
        (each.feature, f"{each.distance:.3f}", each.unit, small(each.p), each.change) for each in features[:_FEATURES]
    ]
    some = f", the {_FEATURES} farthest of {len(features)}" if len(features) > _FEATURES else ""
    note = (
        "Of numbers: first Wasserstein distance in standard deviations of the training rows; of categories: the share "
        "of rows that must change. p: could so many rows of the training data look as different by chance?"
    )
    return Table(f"Distance from the training rows{some}", head, lines, text_columns=(0, 2, 4), note=note)


def _card(found: Evaluation) -> Table:
    """The model's card, without what fills pages."""
    kept = {key: value for key, value in found.card.items() if key not in ("reference", "columns", "features")}
    return Table("The model's card", ("what", "value"), [(k, str(v)) for k, v in kept.items()], text_columns=(0, 1))
