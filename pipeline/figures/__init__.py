"""Pictures of results: records and arrays in, a matplotlib `Figure` out.

style        colours, sizes, labels, saving
tables       the numbers behind the pictures of an experiment
experiment   which ones an experiment has, drawn by curves, scores, confusion, classes, ranking, calibration, samples,
             regression, boundary, inside and augmentation
drift        how far new rows are from those that taught
study        of a search: how it went, what the score depends on; combinations: its settings together
interactive  of a search, by plotly
trials       of a search: the record, and what can be counted
"""

from pipeline.figures.augmentation import augmented_samples
from pipeline.figures.boundary import Scene, animate_boundary, decision_boundary, film_of
from pipeline.figures.calibration import reliability_diagram
from pipeline.figures.classes import per_class
from pipeline.figures.confusion import confusion_matrix
from pipeline.figures.curves import epoch_values, fold_curves, learning_curves
from pipeline.figures.drift import distances, distributions, mean_pictures
from pipeline.figures.experiment import of_answers, of_outcome, of_trial
from pipeline.figures.inside import inside_the_network
from pipeline.figures.ranking import ranking_curves
from pipeline.figures.regression import predicted_against_true, residuals
from pipeline.figures.samples import worst_samples
from pipeline.figures.scores import fold_scores, overfitting
from pipeline.figures.study import of_study, search_history, search_importance, search_slices
from pipeline.figures.style import save
from pipeline.figures.tables import tables_of
from pipeline.figures.trials import SearchTrial

__all__ = [
    "Scene",
    "SearchTrial",
    "animate_boundary",
    "augmented_samples",
    "confusion_matrix",
    "decision_boundary",
    "distances",
    "distributions",
    "epoch_values",
    "film_of",
    "fold_curves",
    "fold_scores",
    "inside_the_network",
    "learning_curves",
    "mean_pictures",
    "of_answers",
    "of_outcome",
    "of_study",
    "of_trial",
    "overfitting",
    "per_class",
    "predicted_against_true",
    "ranking_curves",
    "reliability_diagram",
    "residuals",
    "save",
    "search_history",
    "search_importance",
    "search_slices",
    "tables_of",
    "worst_samples",
]
