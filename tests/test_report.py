"""The report says what the records say, is valid HTML that needs nothing else, and can be read in light and dark."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from pipeline import experiment, report
from pipeline.experiment import Outcome
from pipeline.figures import SearchTrial, learning_curves, of_study
from pipeline.metrics import metrics_of
from pipeline.report.page import picture
from pipeline.results import FoldResult, Status
from pipeline.search.objectives import Objective
from tests.engines.conformance import small, three_classes

ACCURACY = metrics_of("multiclass")[0]
COMMANDS = {"Run it again": "python scripts/train.py 'model.hidden=[12,9]'", "Look at the runs": "make ui"}
VOID = {"meta", "img", "br", "link", "input", "hr"}
SETTINGS = small("engine=numpy", "trainer.max_epochs=2", "model.hidden=[4]")


class Read(HTMLParser):
    """A page as a reader finds it: elements, texts by the section they stand in, and what is wrong with it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.problems: list[str] = []
        self.rows: list[list[str]] = []
        self.sections: dict[str, str] = {}
        self._open: list[str] = []
        self._heading = ""
        self.feed(html)
        self.close()
        self.problems += [f"{tag} stays open" for tag in self._open]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "h2":
            self._heading = ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()} closes another element")

    def handle_data(self, data: str) -> None:
        if "h2" in self._open:
            self._heading += data
        elif not {"style", "script"} & {*self._open}:
            self.sections[self._heading] = self.sections.get(self._heading, "") + data
            if self.rows and {"td", "th"} & {*self._open}:
                self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """A whole experiment, with class names that are markup."""
    data = replace(three_classes(), class_names=("<b>bold</b>", "a & b", '"c"'))
    return experiment.finish(experiment.validate(SETTINGS, data))


def page_of(outcome: Outcome, **figures: Any) -> Read:
    return Read(report.of_outcome(outcome, figures, COMMANDS))


TRIALS = [
    SearchTrial(0, "complete", 0.80, {"activation": "relu", "optimizer.lr[adam]": 0.01}, 3.0, 0.02, {1: 0.5, 2: 0.8}),
    SearchTrial(1, "pruned", 0.70, {"activation": "tanh", "optimizer.lr[sgd]": 0.1}, 1.0, None, {1: 0.7}),
    SearchTrial(2, "complete", 0.90, {"activation": "<b>gelu", "optimizer.lr[adam]": 0.02}, 4.0, 0.01, {1: 0.8}),
    SearchTrial(3, "diverged", None, {"activation": "relu", "optimizer.lr[sgd]": 0.3}, 1.0),
    SearchTrial(4, "complete", 0.10, {"activation": "relu", "optimizer.lr[sgd]": 0.2}, 1.0, 0.01, {1: 0.1, 2: 0.1}),
]  # fmt: skip


@pytest.fixture(scope="module")
def study(outcome: Outcome) -> report.Study:
    """A search whose winner's interval holds one of the two other complete trials."""
    accuracy = replace(outcome.result.cv["accuracy"], mean=0.9, low=0.75, high=1.0)
    best = replace(outcome.result, cv={**outcome.result.cv, "accuracy": accuracy})
    space = {"activation": "relu | tanh | <b>gelu", "optimizer.lr[adam]": "0.001 … 0.1, log"}
    test = {"accuracy": 0.88}
    return report.Study("blobs-1", ACCURACY, TRIALS, {"activation": 1.0}, space, 2, SETTINGS, best, test, 3)


def study_page(study: report.Study) -> Read:
    return Read(report.of_study(study, {}, {}, COMMANDS))


@pytest.fixture(scope="module")
def pages(outcome: Outcome, study: report.Study) -> dict[str, str]:
    drawn = of_study(TRIALS, ACCURACY, study.importances)
    final = {"learning_curves": learning_curves(outcome.result)}
    return {
        "outcome": report.of_outcome(outcome, final, COMMANDS),
        "study": report.of_study(study, drawn, final, COMMANDS),
        "interactive": b"".join(report.interactive(study)).decode(),
    }


# Every page -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["outcome", "study", "interactive"])
def test_a_page_is_valid_and_outlined(pages: dict[str, str], name: str) -> None:
    read = Read(pages[name])
    assert not read.problems
    assert pages[name].startswith("<!DOCTYPE html>")
    assert read.all("html")[0]["lang"] == "en"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in read.all("meta")
    assert len(read.all("title")) == len(read.all("h1")) == len(read.all("main")) == 1
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch("h[1-6]", tag)]
    assert all(deeper <= level + 1 for level, deeper in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ["outcome", "study", "interactive"])
def test_a_page_needs_nothing_from_elsewhere(pages: dict[str, str], name: str) -> None:
    read = Read(pages[name])
    named = [attributes[key] for _, attributes in read.elements for key in ("src", "href") if key in attributes]
    assert all(str(address).startswith("data:") for address in named)
    assert not read.all("link")
    (policy,) = [meta["content"] for meta in read.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none';")
    assert "http" not in str(policy)


def test_reports_hold_no_script_and_the_charts_hold_their_library_once(pages: dict[str, str]) -> None:
    assert not Read(pages["outcome"]).all("script")
    assert not Read(pages["study"]).all("script")
    charts = Read(pages["interactive"])
    assert pages["interactive"].count("plotly.js v") == 1
    drawn = [attributes["id"] for attributes in charts.all("div") if attributes.get("class") == "plotly-graph-div"]
    assert drawn == [f"search_{name}" for name in ("history", "curves", "importance", "parallel", "slices", "seconds")]
    assert len(charts.all("script")) == 1 + len(drawn)


@pytest.mark.parametrize("name", ["outcome", "study", "interactive"])
def test_markup_in_names_is_text(pages: dict[str, str], name: str) -> None:
    assert not Read(pages[name]).all("b")


@pytest.mark.parametrize("name", ["outcome", "study"])
def test_pictures_are_in_the_page_and_told_in_words(pages: dict[str, str], name: str) -> None:
    pictures = Read(pages[name]).all("img")
    assert len(pictures) == {"outcome": 1, "study": 7}[name]
    for one in pictures:
        kind, _, data = str(one["src"]).partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
        assert one["alt"]
        assert int(one["width"] or 0) > 100
        assert int(one["height"] or 0) > 100


def test_a_picture_is_told_by_its_title_and_axes(outcome: Outcome) -> None:
    told = picture("learning_curves", learning_curves(outcome.result))
    assert told.name == "Learning curves"
    assert "loss against epoch, accuracy against epoch." in told.alt


@pytest.mark.parametrize("name", ["outcome", "study"])
def test_tables_name_their_columns_and_rows(pages: dict[str, str], name: str) -> None:
    html = pages[name]
    tables = re.findall(r"<table.*?</table>", html, re.DOTALL)
    assert len(tables) == 4
    for table in tables:
        read = Read(table)
        heads = [head for head in read.all("th") if head["scope"] == "col"]
        bodies = [row for row in read.rows if row][1 if heads else 0 :]
        assert bodies
        assert all(len(row) == (len(heads) or 2) for row in bodies)
        assert len([head for head in read.all("th") if head["scope"] == "row"]) == len(bodies)


def luminance(colour: str) -> float:
    """Relative luminance as in WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def schemes(html: str) -> Iterator[dict[str, str]]:
    for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL):
        yield dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))


def test_text_stands_out_in_light_and_dark(pages: dict[str, str]) -> None:
    light, dark = schemes(pages["study"])
    assert luminance(light["page"]) > 0.8
    assert luminance(dark["page"]) < 0.1
    for scheme in (light, dark):
        for back in ("page", "card", "marked"):
            for text in ("ink", "quiet", "accent") if back != "marked" else ("ink",):
                bright, dim = sorted((luminance(scheme[back]), luminance(scheme[text])), reverse=True)
                assert (bright + 0.05) / (dim + 0.05) >= 4.5, (back, text)


# One experiment -------------------------------------------------------------------------------------------------------


def test_the_answer_comes_with_its_uncertainty(outcome: Outcome) -> None:
    read, accuracy = page_of(outcome), outcome.result.cv["accuracy"]
    answer = read.sections["Answer"]
    assert f"{accuracy.mean:.4f}" in answer
    assert f"95 % interval {accuracy.low:.4f} … {accuracy.high:.4f}, mean of 3 folds" in answer
    assert f"{outcome.result.test['accuracy']:.4f}" in answer
    assert f"{len(outcome.plan.test)} rows, seen once" in answer
    spread = [f"{accuracy.mean:.4f}", f"{accuracy.low:.4f} … {accuracy.high:.4f}", f"{accuracy.std:.4f}"]
    tested = [f"{scores['accuracy']:.4f}" for scores in (outcome.result.test, outcome.result.ensemble)]
    assert ["accuracy", *spread, *tested] in read.rows
    head = ["metric", "mean of 3", "95 % interval", "std", "test", "test, folds together"]
    first = read.rows.index(head) + 1
    assert read.rows[first][0] == "accuracy"  # what the experiment is judged by


def test_question_folds_and_settings_are_told(outcome: Outcome) -> None:
    read = page_of(outcome)
    assert "How well does mlp 4 · relu · " in read.sections["Question"]
    assert f"{len(outcome.plan.development)} development rows" in read.sections["Question"]
    assert "accuracy, higher is better" in read.sections["Question"]
    folds = [row for row in read.rows if len(row) == 8 and row[0].isdigit()]
    assert [row[2] for row in folds] == [f"{fold.scores['accuracy']:.4f}" for fold in outcome.result.folds]
    assert ["trainer.max_epochs", "2"] in read.rows


def test_commands_stand_as_they_are_typed(outcome: Outcome) -> None:
    told = page_of(outcome).sections["Again, and further"]
    assert all(what in told and command in told for what, command in COMMANDS.items())


def test_caveats_hold_the_notes_and_what_the_interval_rests_on(outcome: Outcome) -> None:
    caveats = page_of(outcome).sections["How far to trust it"]
    assert all(note in caveats for note in outcome.result.notes)
    assert "It rests on 3 numbers only." in caveats
    assert "chosen on the test rows" in caveats


def test_an_experiment_that_diverged_says_so_and_has_no_score(outcome: Outcome) -> None:
    broken = [replace(fold, status=Status.DIVERGED, scores={}) for fold in outcome.result.folds]
    notes = ("Fold 1 diverged: the loss became NaN in epoch 2.",)
    result = replace(outcome.result, folds=tuple(broken), cv={}, refit=None, notes=notes)
    read = page_of(replace(outcome, result=result))
    assert [card.get("class") for card in read.all("dd")].count("value") == 1
    assert "diverged" in read.sections["Answer"]
    caveats = read.sections["How far to trust it"]
    assert "There is no score over folds, because 3 folds diverged." in caveats
    assert "Fold 1 diverged: the loss became NaN in epoch 2." in caveats


def test_one_split_has_no_interval(outcome: Outcome) -> None:
    fold: FoldResult = outcome.result.folds[0]
    nan = float("nan")
    alone = {name: replace(score, n=1, low=nan, high=nan) for name, score in outcome.result.cv.items()}
    read = page_of(replace(outcome, result=replace(outcome.result, folds=(fold,), cv=alone)))
    assert "one split, so no interval" in read.sections["Answer"]
    assert "There is one split only" in read.sections["How far to trust it"]


# A search -------------------------------------------------------------------------------------------------------------


def test_the_leaderboard_ranks_trials_and_marks_the_winner(study: report.Study) -> None:
    html = report.of_study(study, {}, {}, COMMANDS)
    read = Read(html)
    first = read.rows.index(["place", "trial", "accuracy", "status", "activation", "optimizer.lr", "time"]) + 1
    assert read.rows[first : first + 5] == [
        ["1", "2", "0.9000 ± 0.0100", "complete", "<b>gelu", "0.02", "4 s"],
        ["2", "0", "0.8000 ± 0.0200", "complete", "relu", "0.01", "3 s"],
        ["3", "4", "0.1000 ± 0.0100", "complete", "relu", "0.2", "1 s"],
        ["4", "1", "0.7000", "pruned, epoch 1", "tanh", "0.1", "1 s"],
        ["5", "3", "–", "diverged", "relu", "0.3", "1 s"],
    ]
    (marked,) = re.findall(r'<tr class="marked">.*?</tr>', html)
    assert Read(marked).rows[0][1] == "2"


def test_a_search_tells_what_was_searched_and_how_it_ended(study: report.Study) -> None:
    read = study_page(study)
    assert "Which activation, optimizer.lr give the best accuracy on digits?" in read.sections["Question"]
    assert "activation: relu | tanh | <b>gelu" in read.sections["Question"]
    assert "3 complete, 1 pruned, 1 diverged" in read.sections["Answer"]
    assert "seen 3 times" in read.sections["Answer"]
    assert "0.8800" in read.sections["Answer"]


def test_a_search_warns_of_what_its_choice_does_to_scores(study: report.Study) -> None:
    caveats = study_page(replace(study, notes=["The best rate lies at the end of its range."])).sections
    told = caveats["How far to trust it"]
    assert "Trial 2 was picked for its score over folds, the best of 3 complete trials: so that score flatters" in told
    assert "1 of the 2 other complete trials lies inside the winner's 95 % interval" in told
    assert "1 trial pruned" in told
    assert "1 trial diverged" in told
    assert "Test rows were scored 3 times" in told
    assert "The best rate lies at the end of its range." in told


def test_a_winner_that_was_not_the_best_came_out_first_when_repeated(study: report.Study) -> None:
    read = study_page(replace(study, winner=0))
    assert (
        "one of the best of 3 complete trials, and came out first when they were"
        in read.sections["How far to trust it"]
    )


def test_long_studies_show_their_best_and_other_quantities(study: report.Study) -> None:
    alike = replace(TRIALS[0], std=float("nan"), further={"parameters": 12_345.0})
    many = [replace(alike, number=n, value=0.5 + n / 100) for n in range(30)]
    read = study_page(replace(study, trials=many, winner=29))
    assert "The best 10 of 30 trials" in read.sections["Leaderboard"]
    places = [row for row in read.rows if len(row) == 8 and row[0].isdigit()]
    assert [row[1] for row in places] == [str(n) for n in range(29, 19, -1)]
    assert places[0][2:4] == ["0.7900", "12,345"]


def test_a_search_after_two_things_lists_the_trials_to_choose_among(study: report.Study) -> None:
    sizes = {0: 610.0, 2: 4810.0}
    trials = [replace(one, further={"parameters": sizes.get(one.number, 9000.5)}) for one in TRIALS]
    parameters = Objective("parameters", "minimize")
    read = study_page(replace(study, trials=trials, others=[parameters], front={0, 2}))
    assert "the best accuracy and parameters" in read.sections["Question"]
    assert "parameters, lower is better" in read.sections["Question"]
    told = read.sections["Leaderboard"].partition("The front: 2 trials that no other beats in everything")[2]
    assert told
    assert "4,810" in told
    assert "610" in told
    assert "9000.5" not in told
    assert "The front" not in study_page(study).sections["Leaderboard"]


@pytest.mark.parametrize("trials", [[], TRIALS[1:2]])
def test_a_search_without_a_complete_trial_has_its_page(study: report.Study, trials: list[SearchTrial]) -> None:
    bare = replace(study, trials=trials, importances={}, winner=None, best=None, test={}, looks=0)
    read = study_page(bare)
    assert not read.problems
    assert read.all("h1")
    assert "no trial is complete" in read.sections[""]
    assert not Read(b"".join(report.interactive(bare)).decode()).problems
