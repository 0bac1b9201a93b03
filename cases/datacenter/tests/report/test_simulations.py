"""Pages of simulated runs, and of the experiments that replay them."""

from __future__ import annotations

import numpy as np
import pytest
import small_runs
import small_scenarios as small

from read_reports import everything_is_drawn, listing

pytest.importorskip("matplotlib")

from memento.errors import ForeignError
from memento.report import folders
from memento.report.experiments import Results
from memento_datacenter import experiments
from memento_datacenter.report import scenarios
from memento_datacenter.report.simulations import of_simulations
from memento_datacenter.schema import Runs
from memento_datacenter.workloads import published


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("simulated")
    for setting, number in (("w1", 1), ("w1", 2), ("w2_c100", 5)):
        small_runs.made_up(setting, number, 600).write(Runs(place).path(setting, number))
    return place


def test_a_page_of_runs(folder, tmp_path):
    assert folders.kind_of(folder) == "simulations"
    report = of_simulations(folder)
    assert [section.name for section in report.sections] == ["setup", "message-sizes", "runs"]
    found = listing(report.section("runs"), "runs")
    assert found["setting"] == ["w1", "w2_c100"]
    assert found["runs"] == [2, 1]
    run = Runs(folder).read("w1", 1)
    assert found["packets"] == [600, 600]
    assert found["samples"][0] == sum(n - 127 for n in np.bincount(run.application))
    assert found["delay 50 % (ms)"][0] == pytest.approx(1e3 * np.median(run.delay))
    everything_is_drawn(report, tmp_path)


def test_message_sizes_are_those_of_the_workloads(folder):
    section = of_simulations(folder).section("message-sizes")
    table = listing(section, "message-sizes")
    at = table["quantile"].index("50%")
    assert [round(table[name][at]) for name in ("w1", "w2", "w3")] == [3405, 48, 654]
    assert table["w2"][-1] == published()["w2"].mean
    shown = section.charts[0].table
    assert len(shown["value"]) == sum(len(w.sizes) for w in published().values())


def test_a_folder_without_runs(tmp_path):
    with pytest.raises(ForeignError, match="memento datacenter simulate"):
        of_simulations(tmp_path)


def test_networks_beside_the_papers():
    table = listing(scenarios.networks(), "networks")
    assert table["paper units"] == [512, 362]
    assert table["paper learning_rate"] == [5.91e-5, 0.382]
    assert table["units"] == [128, 128]


def test_larger_memories_are_declared_where_a_pattern_asks():
    known = {one.name: one for one in experiments.experiments()}
    larger = [one for name, one in known.items() if name.startswith(scenarios.LARGER)]
    assert len(larger) == 4 * 5
    assert all(one.on_demand for one in larger)
    assert larger[0].parameters["plan"] == {"capacities": {"congestion": 80_000}}
    assert not known["congestion-memento-0"].on_demand


def test_replays_among_experiments(tmp_path):
    """Tables of `memento run` become the sections that a folder of replays has."""
    made = small.table()
    of = {
        name: {n: c[(made["scenario"] == scenario) & (made["memory"] == "memento")
                    & (made["seed"] == 0)] for n, c in made.items()}
        for name, scenario in (("rare-patterns-memento-0", "rare-patterns"),
                               ("congestion-80000-memento-0", "congestion"))
    }  # fmt: skip

    class Read(Results):
        def table(self, group, name, file):
            return of.get(name)

        def asked(self, group, name):
            scenario = name.partition("-80000")[0].removesuffix("-memento-0")
            return {"parameters": {"scenario": scenario, "memory": "memento", "seed": 0}}

    results = Read(tmp_path, {"datacenter-replay": dict.fromkeys([*of, "incremental-fifo-0"])})
    results.remedy = lambda group, name="": f"memento run {group} {name}"
    scenarios.replays(results)
    names = [section.name for section in results.sections]
    assert names == ["rare-patterns", scenarios.LARGER, "networks"]
    larger = results.sections[1]
    assert larger.title == "Congestion, memories of 80,000"
    assert len(listing(larger, f"{scenarios.LARGER}-scores")["score"]) > 3
    for chart in larger.charts:
        assert chart.save(tmp_path).is_file()
    assert results.missing == {
        "datacenter-incremental-fifo-0": "memento run datacenter-replay incremental-fifo-0"
    }
