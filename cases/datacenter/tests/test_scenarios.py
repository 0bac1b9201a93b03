"""Scenarios, memories and plans: those of the paper, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from small_runs import PLAN

from memento.errors import SettingError
from memento_datacenter.scenarios import MEMORIES, SCENARIOS, Plan, memories_of, scenario


def test_rare_patterns_are_those_of_the_paper():
    arrivals = scenario("rare-patterns").arrivals
    assert len(arrivals) == 20
    assert all("w2" in names for names in arrivals)
    assert [i for i, names in enumerate(arrivals, 1) if "w1" in names] == [1, 6, 11, 16]
    assert [i for i, names in enumerate(arrivals, 1) if "w3" in names] == [1, 11]


def test_the_other_scenarios_are_those_of_the_paper():
    assert scenario("incremental").arrivals == (("w1",),) * 10 + (("w2",),) * 10 + (("w3",),) * 10
    congestion = scenario("congestion")
    assert len(congestion) == 30
    assert congestion.arrivals[0] == ("w1", "w2", "w3")
    assert congestion.arrivals[10] == congestion.judged[10] == ("w1_c100", "w2_c100", "w3_c100")
    assert congestion.arrivals[29] == ("w1_c133", "w2_c133", "w3_c133")
    assert [scenario(name).capacity for name in SCENARIOS] == [20_000, 20_000, 60_000]


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_run_is_used_twice_and_none_of_those_for_tuning_and_judging(name):
    shift = scenario(name)
    needed = [one for runs in Plan().needed(shift, 3) for one in runs]
    assert len(set(needed)) == len(needed)
    assert min(number for _, number in needed) >= 2
    assert max(number for _, number in needed) <= 21
    assert [tuple(n for n, _ in runs) for runs in Plan().needed(shift, 3)] == list(shift.arrivals)
    assert Plan().needed(shift, 4) != Plan().needed(shift, 3)


def test_unknown_names_and_phases():
    with pytest.raises(SettingError, match="give one of rare-patterns"):
        scenario("rare")
    with pytest.raises(SettingError, match="phase is 1; expected a whole number from 2"):
        scenario("incremental", phase=1)
    with pytest.raises(SettingError, match="needs 20 runs of w2, the plan has 4"):
        Plan(runs=4).needed(scenario("rare-patterns"), 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"phase": 1}, "phase is 1"),
        ({"stride": 0}, "stride is 0"),
        ({"window": True}, "window is True"),
        ({"capacities": {"incremental": 0}}, "capacity of incremental is 0"),
        ({"capacities": {"nonsense": 5}}, "unknown scenario 'nonsense'"),
    ],
)
def test_plans_out_of_range(values, message):
    with pytest.raises(SettingError, match=message):
        Plan(**values)


def test_a_plan_survives_being_written_down():
    plan = dataclasses.replace(PLAN, stride=2)
    assert Plan.from_document(json.loads(json.dumps(plan.document()))) == plan
    assert Plan.from_document({}) == Plan()
    assert Plan.from_document({"classification": {"epochs": 3}}).classification.epochs == 3
    with pytest.raises(SettingError, match="plan: unknown setting 'strid'"):
        Plan.from_document({"strid": 1})
    with pytest.raises(SettingError, match="epoch"):
        Plan.from_document({"regression": {"epoch": 3}})


def test_a_stride_leaves_as_many_batches_and_steps():
    whole, part = Plan(), Plan(stride=4)
    shift = scenario("rare-patterns")
    assert part.capacity(shift) * 4 == whole.capacity(shift) == 20_000
    assert part.policy("memento", shift.task).batch_size * 4 == 256
    assert part.network(shift.task).batch_size * 4 == whole.network(shift.task).batch_size


def test_memories_apply_to_tasks():
    assert memories_of("classification") == tuple(MEMORIES)
    assert set(MEMORIES) - set(memories_of("regression")) == {"lars", "class-balanced"}
    with pytest.raises(SettingError, match="needs classes"):
        Plan().policy("lars", "regression")
    with pytest.raises(SettingError, match="give one of memento"):
        Plan().policy("nonsense", "classification")


def test_the_page_says_what_each_memory_is():
    """One table of arms, one glossary: the page of the case has a row for each."""
    page = Path(__file__).parents[1] / "docs" / "datacenter.md"
    if not page.is_file():
        pytest.skip("needs the whole checkout")
    rows = re.findall(r"^\| ((?:`[\w-]+`(?:, )?)+) \|", page.read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert set(MEMORIES) <= named
