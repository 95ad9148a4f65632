"""Is one run better than another, or is it luck?

    admission   which runs may be compared at all, and why not
    measures    what is compared: a value per fold and, where it is a mean over rows, one per row
    contest     the tests of every pair
    wording     the verdict, the page in the terminal, JSON
    picture     differences with their intervals

Runs come as `tracking.reading` reads them. Of each pair two questions are asked, and they are not the same. Would these
settings win again, with other training rows and initial weights? The folds answer that, for each trained a network of
its own: corrected resampled t-test. Do these very networks differ on more rows like these? The rows answer that:
McNemar's test and the paired bootstrap. The verdict goes by the first.
"""

from __future__ import annotations

from pipeline.compare.contest import Comparison, Entry, Pair, RowTests, compare
from pipeline.compare.picture import differences
from pipeline.compare.wording import as_json, as_text

__all__ = ["Comparison", "Entry", "Pair", "RowTests", "as_json", "as_text", "compare", "differences"]
