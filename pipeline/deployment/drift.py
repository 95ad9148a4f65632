"""How far new rows are from those that taught a model, feature by feature, by the reference that it carries.

Of numbers the distance is the first Wasserstein distance in units of the training rows' standard deviation: by how much
a value must be moved on average. Of categories it is the total variation: the share of rows that must change. Whether
chance explains it is asked by Kolmogorov and Smirnov's test, and by the chi-square test; p-values are Holm's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.export.reference import LEVELS, OTHER, Feature, features_of, picture, target_of
from pipeline.statistics import holm

if TYPE_CHECKING:
    from pipeline.data import Dataset

SHOWN = 0.01
"""What p must stay below, after Holm's correction, for a distance to be called drift."""

UNSEEN = "(unseen)"
"""A category that the training rows lacked."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One feature. unit: of the distance, in words. p: after Holm. change: then -> now, in words.

    `then` and `now` are shares by category; of numbers their quantiles at `reference.LEVELS`, which are days since 1970
    where it is dated.
    """

    feature: str
    distance: float
    unit: str
    p: float
    change: str
    then: Mapping[str, float] | tuple[float, ...]
    now: Mapping[str, float] | tuple[float, ...]
    dated: bool = False

    @property
    def shown(self) -> bool:
        """Whether it is more than chance explains."""
        return self.p < SHOWN


@dataclass(frozen=True, slots=True, eq=False)
class Drifts:
    """All features, the farthest first; pictures: the mean row then and now, of images."""

    features: tuple[Drift, ...]
    rows: int
    pictures: tuple[np.ndarray, np.ndarray] | None = None

    def sentence(self) -> str:
        """What it comes to."""
        far = [each for each in self.features if each.shown]
        count = len(self.features)
        if not far:
            return f"No drift is shown: {self.rows:,} rows of the training data could look as different by chance."
        told = "; ".join(f"{each.feature} by {each.distance:.2f} {each.unit} ({each.change})" for each in far[:3])
        more = f"; and {len(far) - 3} more" if len(far) > 3 else ""
        return (
            f"{len(far)} of {count} features {'is' if len(far) == 1 else 'are'} further from the training rows than "
            f"chance explains: {told}{more}."
        )


def drift(reference: Mapping[str, Any], data: Dataset) -> Drifts:
    """Of rows whose inputs and targets are of the kind that the reference describes."""
    taught = int(reference["rows"])
    features = [*features_of(data, data.inputs)]
    if reference["target"] and (target := target_of(data, data.targets)):
        features.append(target)
    known = {each["name"]: each for each in [*reference["features"], reference["target"]] if each}
    described = [feature for feature in features if feature.name in known]  # another version may describe others
    found = [one for feature in described for one in _of_feature(known[feature.name], feature, taught)]
    adjusted = holm([one.p for one in found])
    ordered = sorted((replace(one, p=p) for one, p in zip(found, adjusted, strict=True)), key=lambda one: -one.distance)
    then = reference["picture"]
    pictures = (np.array(then), np.array(picture(data.inputs))) if then else None
    return Drifts(tuple(ordered), len(data), pictures)


def _of_feature(reference: Mapping[str, Any], feature: Feature, taught: int) -> Iterator[Drift]:
    present = feature.values[np.isfinite(feature.values)]
    missing = 1 - len(present) / len(feature.values)
    if missing or reference["missing"]:
        shares = {"missing": reference["missing"], "there": 1 - reference["missing"]}
        now = {"missing": missing, "there": 1 - missing}
        yield _of_shares(f"{feature.name}, missing", shares, now, taught, len(feature.values))
    if not len(present):
        return
    if "shares" in reference:
        now = _now(feature, present, reference["shares"])
        yield _of_shares(feature.name, reference["shares"], now, taught, len(present))
    elif reference["quantiles"] and not reference["std"]:
        yield _of_a_constant(feature.name, reference["quantiles"][0], present, taught)
    elif reference["quantiles"]:
        yield _of_numbers(feature, reference, present, taught)


def _now(feature: Feature, places: np.ndarray, then: Mapping[str, float]) -> dict[str, float]:
    """Shares by the reference's categories."""
    counts = np.bincount(places.astype(np.int64), minlength=len(feature.categories) + 1)
    now = dict.fromkeys(then, 0.0)
    for name, count in zip([*feature.categories, UNSEEN], counts.tolist(), strict=False):
        where = name if name in then else UNSEEN if name == UNSEEN else OTHER
        if count or where in now:
            now[where] = now.get(where, 0.0) + count / len(places)
    return now


def _of_shares(name: str, then: Mapping[str, float], now: Mapping[str, float], taught: int, rows: int) -> Drift:
    from scipy.stats import chi2_contingency

    kinds = list(dict.fromkeys([*then, *now]))
    shares = np.array([[part.get(kind, 0.0) for kind in kinds] for part in (then, now)])
    counts = np.rint(shares * np.array([[taught], [rows]]))
    counts = counts[:, counts.sum(axis=0) > 0]
    p = float(chi2_contingency(counts, correction=False).pvalue) if counts.shape[1] > 1 else 1.0
    changed = kinds[int(np.abs(shares[1] - shares[0]).argmax())]
    change = f"{changed} {then.get(changed, 0.0):.1%} → {now.get(changed, 0.0):.1%}"
    distance = float(np.abs(shares[1] - shares[0]).sum() / 2)
    return Drift(name, distance, "of the rows", p, change, dict(then), dict(now))


def _of_a_constant(name: str, value: float, values: np.ndarray, taught: int) -> Drift:
    """A number that never varied has no spread to measure by: what counts is how many rows have another one."""
    same, told = float(np.mean(values == value)), f"{value:.4g}"
    return _of_shares(name, {told: 1.0}, {told: same, OTHER: 1 - same}, taught, len(values))


def _of_numbers(feature: Feature, reference: Mapping[str, Any], values: np.ndarray, taught: int) -> Drift:
    from scipy.stats import kstwobign

    quantiles, at_most = np.array(reference["quantiles"]), np.array(reference["at_most"])
    below = np.searchsorted(np.sort(values), quantiles, side="right") / len(values)
    reached = np.quantile(values, LEVELS, method="inverted_cdf")
    distance = float(np.trapezoid(np.abs(reached - quantiles), LEVELS)) / reference["std"]
    # Between the quantiles the gap may be larger: the test errs on the careful side.
    gap = float(np.abs(below - at_most).max())
    p = float(kstwobign.sf(gap * math.sqrt(taught * len(values) / (taught + len(values)))))
    then, mean = (_as_text(value, feature.dated) for value in (reference["mean"], float(values.mean())))
    return Drift(
        feature=feature.name,
        distance=distance,
        unit="standard deviations",
        p=p,
        change=f"mean {then} → {mean}",
        then=tuple(quantiles.tolist()),
        now=tuple(reached.tolist()),
        dated=feature.dated,
    )


def _as_text(value: float, dated: bool) -> str:
    return str(np.datetime64(round(value), "D")) if dated else f"{value:.4g}"
