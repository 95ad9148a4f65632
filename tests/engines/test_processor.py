"""Threads and the library for float32 matrices: measured where the settings leave it open, put back afterwards."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
import torch

from pipeline import engines
from pipeline.engines.lightning import processor
from pipeline.engines.lightning.module import ReplicaModule
from pipeline.engines.lightning.processor import Choice, arranged, choose, error_of
from pipeline.errors import ConfigError
from pipeline.folds import plan, replicas
from pipeline.settings import TrainerSettings
from pipeline.settings import compose_variation as compose
from tests.engines.conformance import assert_same, nobody, small, three_classes
from tests.tables import a_table

BIG, TINY = 1e9, 1e3


def trainer(*overrides: str) -> TrainerSettings:
    return compose(list(overrides)).trainer


def precision() -> str:
    value: str = torch.backends.mkldnn.matmul.fp32_precision
    return value


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured for other tests; and there are 4 threads to choose from."""
    monkeypatch.setattr(processor, "_measured", {})
    monkeypatch.setattr(processor, "error_of", lambda _: 1e-7)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)


def slow_unless(monkeypatch: pytest.MonkeyPatch, fast: Choice) -> list[Choice]:
    """A step takes 2 ms, 1 under one choice. Returns what is tried."""
    tried: list[Choice] = []
    under = processor._under

    def noted(choice: Choice) -> AbstractContextManager[None]:
        tried.append(choice)
        return under(choice)

    monkeypatch.setattr(processor, "_under", noted)
    monkeypatch.setattr(processor, "seconds_of", lambda work: work() or (0.001 if tried[-1] == fast else 0.002))
    return tried


@pytest.mark.parametrize("fast", [Choice(1, "default"), Choice(4, "default"), Choice(2, "onednn")], ids=str)
def test_the_fastest_way_is_measured_once_for_a_size(fast: Choice, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = slow_unless(monkeypatch, fast)
    assert choose(trainer(), BIG, lambda: None, "size") == fast
    assert tried == [Choice(count, library) for count in (1, 2, 4) for library in ("default", "onednn")]
    assert choose(trainer(), BIG, lambda: None, "size") == fast
    assert len(tried) == 6
    choose(trainer(), BIG, lambda: None, "another size")
    assert len(tried) == 12


def test_what_the_settings_name_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = slow_unless(monkeypatch, Choice(4, "onednn"))
    assert choose(trainer("trainer.threads=3"), BIG, lambda: None, 0).threads == 3
    assert choose(trainer("trainer.matmul=default"), BIG, lambda: None, 1) == Choice(1, "default")
    assert {choice.threads for choice in tried[:2]} == {3}
    assert {choice.library for choice in tried[2:]} == {"default"}


def test_a_small_network_runs_on_one_thread_unmeasured() -> None:
    assert choose(trainer(), TINY, lambda: pytest.fail("measured"), 0) == Choice(1, "default")
    assert choose(trainer(), BIG, None, 0) == Choice(4, "default"), "what cannot be rehearsed takes all"


def test_a_library_that_rounds_is_never_chosen_and_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "error_of", {"default": 3e-7, "onednn": 2e-3}.__getitem__)
    tried = slow_unless(monkeypatch, Choice(1, "onednn"))
    choose(trainer(), BIG, lambda: None, 0)
    assert {choice.library for choice in tried} == {"default"}
    with pytest.raises(ConfigError, match=r"error of a product is 2e-03, that of float32 3e-07\. Set trainer\.matmul="):
        choose(trainer("trainer.matmul=onednn"), TINY, None, 0)


def test_the_library_is_in_use_inside_and_put_back_after_an_error() -> None:
    before, inside = precision(), ""

    def fail() -> None:
        nonlocal inside
        with arranged(trainer("trainer.matmul=onednn", "trainer.threads=1"), TINY, None, 0):
            inside = precision()
            raise RuntimeError("full")

    with pytest.raises(RuntimeError, match="full"):
        fail()
    assert (inside, precision()) == (processor.LIBRARIES["onednn"], before)


def test_the_error_is_that_of_float32_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0 < error_of("default") < 1e-6


def test_a_rehearsal_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    data = three_classes()
    settings = small("model.batch_norm=true", "model.dropout=0.3")
    members = replicas(data, settings, plan(data, settings))
    plainly = engines.create(settings).fit(members, data, nobody)
    rehearsed = []

    def seconds(work: processor.Rehearsal) -> float:
        work()
        rehearsed.append(work)
        return 1.0

    monkeypatch.setattr(processor, "_SMALL", 0)
    monkeypatch.setattr(processor, "seconds_of", seconds)
    for one, other in zip(plainly, engines.create(settings).fit(members, data, nobody), strict=True):
        assert_same(one, other)
    assert rehearsed


def test_a_rehearsal_sees_rows_of_a_table_as_the_network_does() -> None:
    data, settings = a_table(task="binary"), small("engine=lightning")
    members = replicas(data, settings, plan(data, settings))
    assert members[0].shape(data) != data.inputs.shape[1:], "words become several numbers"
    ReplicaModule(members, data, nobody, lambda *_: [], len(members)).rehearse()
