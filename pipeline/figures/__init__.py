"""Pictures of results: records and arrays in, a matplotlib `Figure` out.

style        colours, sizes, labels, saving
experiment   of one experiment
study        of a search
"""

from pipeline.figures.experiment import (
    confusion_matrix,
    decision_boundary,
    epoch_values,
    fold_curves,
    fold_scores,
    learning_curves,
    of_outcome,
)
from pipeline.figures.study import SearchTrial, search_history, search_importance, search_slices
from pipeline.figures.style import save

__all__ = [
    "SearchTrial",
    "confusion_matrix",
    "decision_boundary",
    "epoch_values",
    "fold_curves",
    "fold_scores",
    "learning_curves",
    "of_outcome",
    "save",
    "search_history",
    "search_importance",
    "search_slices",
]
