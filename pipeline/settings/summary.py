"""An experiment's settings in the words of a sentence."""

from __future__ import annotations

from pipeline.settings.schema import Settings


def short(target: str) -> str:
    """Of a class or function: torch.optim.Adam -> adam."""
    return target.rpartition(".")[2].strip("_").lower()


def network(settings: Settings) -> str:
    """The network and what trains it, in a line."""
    hidden = "-".join(map(str, settings.model.hidden)) or "linear"
    model, optimizer = short(settings.model.target), short(settings.optimizer.target)
    activation, initializer = short(settings.activation.target), short(settings.initializer.target)
    return f"{model} {hidden} · {activation} · {initializer} · {optimizer}, lr {settings.optimizer.lr:g}"


def validation(settings: Settings, classes: bool) -> str:
    """Who is scored on which rows. classes: whether the targets are classes; values are not stratified."""
    rules = settings.validation
    if rules.method == "holdout":
        return f"scored on {rules.fraction or 0:.0%} held out"
    if rules.method == "resubstitution":
        return "scored on the rows it was trained on"
    if rules.method == "time_series":
        return f"scored on {rules.folds} blocks in time, each after the rows it was trained on"
    stratified = "stratified " if classes else ""
    kind = {"stratified": stratified, "repeated": stratified, "group": "group "}.get(rules.method, "")
    times = f", {rules.repeats} times" if rules.repeats > 1 else ""
    return f"{kind}{rules.folds}-fold cross-validation{times}"
