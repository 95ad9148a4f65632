"""What a person sees who types `make ui` after a search, from the first page to a single fold, figures and the report.

One walk, told in steps; each starts from an address that a person could type.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking import QUESTIONS
from tests.browser.conftest import Browser, Site

ROWS = ".ag-center-cols-container .ag-row"
NAMES = ".ag-pinned-left-cols-container .ag-row a"


@pytest.fixture(scope="session")
def runs(store: str) -> dict[str, list[Any]]:
    """The recorded runs by level, the best trial first."""
    import mlflow

    client = mlflow.MlflowClient(store)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, max_results=1000, order_by=["metrics.`cv/accuracy` DESC"])
    newest = max(found, key=lambda run: run.info.start_time).info.experiment_id
    key = lambda run: run.data.tags["level"]  # noqa: E731
    mine = sorted((run for run in found if run.info.experiment_id == newest), key=key)
    return {level: list(group) for level, group in itertools.groupby(mine, key)}


def page_of(site: Site, run: Any, tab: str = "") -> str:
    return f"{site.server}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}{tab}"


def table_of(browser: Browser, page: str) -> list[str]:
    """Open a table of runs; their names, from the top."""
    browser.open(page)
    return list(browser.until(lambda: browser.texts(NAMES), "no run is to be seen on"))


def cells(browser: Browser, column: str) -> list[str]:
    return browser.texts(f'{ROWS} [col-id="{column}"]')


def test_the_first_page_is_the_leaderboard(browser: Browser, site: Site, runs: dict[str, list[Any]]) -> None:
    page = next(iter(site.pages.values()))
    names = table_of(browser, page)
    browser.keep("runs-table")
    complete = [run for run in runs["trial"] if "cv/accuracy" in run.data.metrics]
    assert names[: len(complete)] == [run.info.run_name for run in complete][: len(names)]
    assert re.fullmatch(r"trial \d\d · \w+ · \w+ · \w+", names[0])
    browser.see(QUESTIONS["trials"])
    heads = browser.texts(".ag-header-cell")
    assert heads.index("cv/accuracy") < heads.index("cv/accuracy_ci_low") < heads.index("optimizer.lr")
    scores = [float(text.rstrip("…")) for text in cells(browser, "metrics.`cv/accuracy`") if text != "-"]
    assert scores == sorted(scores, reverse=True)
    assert cells(browser, "params.`activation`")[0] == complete[0].data.params["activation"]


def test_the_filters_of_the_docs_are_understood(store: str, runs: dict[str, list[Any]], repository: Path) -> None:
    import mlflow

    text = (repository / "docs" / "tracking.md").read_text(encoding="utf-8")
    filters = re.findall(r"^    (tags\.level = .*)$", text, re.MULTILINE)
    assert len(filters) > 3
    experiment = runs["study"][0].info.experiment_id
    for wanted in filters:
        found = mlflow.MlflowClient(store).search_runs([experiment], wanted)
        assert {run.data.tags["level"] for run in found} <= {wanted.split("'")[1]}


def test_no_assistant_stands_in_the_way(browser: Browser, site: Site) -> None:
    """Where this project is installed, as `make` does it: `make ui` starts MLflow with a first look of ours."""
    from importlib.metadata import entry_points

    if not entry_points(group="mlflow.app", name="mlp-pipeline"):
        pytest.skip("the project is not installed here, only its files lie in the path")
    browser.open(f"{site.server}/#/experiments")
    browser.see("Last modified")
    assert not browser.sees("MLflow Assistant")
    assert not browser.sees("AI Gateway"), "the pages for language models are shown"


def test_charts_show_what_the_score_depends_on(browser: Browser, site: Site, runs: dict[str, list[Any]]) -> None:
    browser.open(next(page for page in site.pages.values() if "CHART" in page))
    for text in ("Score over the folds", "Parallel Coordinates", "Learning curves", "val/loss"):
        browser.see(text)
    lines = min(10, sum("cv/accuracy" in run.data.metrics for run in runs["trial"]))
    browser.until(
        lambda: len(browser.all(".js-plotly-plot .bars path")) >= lines, f"{lines} bars are not to be seen on"
    )
    browser.keep("charts")


def test_from_the_experiment_down_to_a_fold(browser: Browser, site: Site, runs: dict[str, list[Any]]) -> None:
    """Experiments → runs → a view → study → trial → fold, by clicking."""
    (study,), best = runs["study"], runs["trial"][0]
    browser.open(f"{site.server}/#/experiments")
    browser.click(best.data.params["task_name"])
    browser.click("Views")
    browser.click(QUESTIONS["studies"])
    browser.until(lambda: browser.texts(NAMES) == [study.info.run_name], "the study alone is not to be seen on")
    browser.click(study.info.run_name)
    browser.see("Child runs")
    browser.see("best/cv/accuracy")
    browser.see(f"accuracy {study.data.metrics['best/cv/accuracy']:.4f}")
    browser.keep("study")
    browser.click(best.info.run_name)
    browser.see("Parent run")
    browser.see(f"accuracy {best.data.metrics['cv/accuracy']:.4f}")
    browser.see("cv/accuracy_ci_low")
    (data,) = best.inputs.dataset_inputs
    browser.see(f"{data.dataset.name} ({data.dataset.digest})")
    browser.keep("trial")
    browser.click("Show more")
    browser.see("Run it again:")
    browser.click("fold 0")
    browser.see("fold 0", inside="h1, h2, h3")
    browser.see("val/accuracy")
    browser.click("Model metrics")
    browser.click("cv")  # folds the scores away; charts further down are drawn when they come into view
    browser.until(lambda: browser.all(".js-plotly-plot .scatterlayer path"), "no curve is to be seen on")
    browser.keep("fold")


def test_the_tree_opens(browser: Browser, site: Site, runs: dict[str, list[Any]]) -> None:
    (study,) = runs["study"]
    assert table_of(browser, site.pages[QUESTIONS["tree"]]) == [study.info.run_name]
    browser.press(lambda: next(iter(browser.all(f"{NAMES[:-2]} button")), None), "the study's plus sign")
    trials = {run.info.run_name for run in runs["trial"][:3]}
    browser.until(lambda: trials <= {*browser.texts(NAMES)}, "its trials are not to be seen on")
    browser.keep("tree")


def test_the_worst_mistakes_are_a_table(browser: Browser, site: Site, runs: dict[str, list[Any]]) -> None:
    browser.open(page_of(site, runs["trial"][0], "/artifacts/mistakes.json"))
    browser.see("out_of_fold.parquet")
    browser.see("p of predicted")
    heads = ("row", "fold", "target", "predicted", "p of target", "p of predicted")
    for head in heads:
        browser.see(head)
    browser.keep("mistakes")


def test_figures_are_shown(browser: Browser, site: Site, store: str, runs: dict[str, list[Any]]) -> None:
    """All that the final run holds, each of them large enough to be read."""
    import mlflow

    final = runs["final"][0]
    files = mlflow.MlflowClient(store).list_artifacts(final.info.run_id, "figures")
    paths = [file.path for file in files if file.path.endswith(".png")]
    assert "figures/learning_curves.png" in paths
    browser.open(page_of(site, final, "/artifacts"))
    browser.click("figures")
    for path in paths:
        browser.click(path.removeprefix("figures/"))
        browser.see(path)
        is_there = lambda: max(map(browser.pixels, browser.all("img")), default=0) > 400  # noqa: E731
        browser.until(is_there, f"{path} is not to be seen on")
        if "learning_curves" in path:
            browser.keep("figures")


@pytest.mark.parametrize("level", ["final", "study"])
def test_the_report_opens_inside_mlflow(
    browser: Browser, site: Site, store: str, runs: dict[str, list[Any]], level: str
) -> None:
    """On one page: the score, and the pictures inside."""
    import mlflow

    run = runs[level][0]
    if "report.html" not in {file.path for file in mlflow.MlflowClient(store).list_artifacts(run.info.run_id)}:
        pytest.fail("report.html is not among the artifacts")
    browser.open(page_of(site, run, "/artifacts/report.html"))
    frame = browser.until(lambda: next(iter(browser.all("iframe")), None), "report.html is not to be seen on")
    text, pictures = browser.until(lambda: browser.inside(frame), "report.html is empty on")
    score = run.data.metrics["cv/accuracy" if level == "final" else "best/cv/accuracy"]
    assert f"{score:.4f}" in text or f"{100 * score:.2f}" in text
    assert pictures
    assert min(pictures) > 300
    if level == "final":
        browser.keep("report")


def test_final_models_stand_side_by_side(browser: Browser, site: Site, runs: dict[str, list[Any]]) -> None:
    names = table_of(browser, site.pages[QUESTIONS["final"]])
    assert {*names} <= {run.info.run_name for run in runs["final"]}
    heads = browser.texts(".ag-header-cell")
    assert {"test/accuracy", "cv/accuracy"} <= {*heads}
    assert all(float(text.rstrip("…")) <= 1 for text in cells(browser, "metrics.`test/accuracy`"))
