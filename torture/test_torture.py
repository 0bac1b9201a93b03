"""A small, fixed part of the campaign, so that what it finds is found at each change."""

from __future__ import annotations

import pytest

from torture import __main__ as campaign
from torture import calls, inputs, soak, trial

pytestmark = pytest.mark.compiled  # processes are forked by the dozen


@pytest.fixture(scope="module")
def started():
    trial.import_all()


KILLED = ("memory-insert", "memory-merge", "save", "select")


@pytest.mark.parametrize("subject", KILLED)
def test_killed_commands_lose_nothing(subject, tmp_path, started):
    tried = campaign.Campaign(tmp_path, tmp_path, frozenset([subject]))
    operations = tried.straight(subject).operations
    for number in (*range(1, operations, max(operations // 6, 1)), operations):
        name = f"kills/{subject}/{2 * (number - 1)}"
        assert tried.one(name) == "", name


@pytest.mark.parametrize("subject", KILLED[:2])
def test_failing_disks_lose_nothing(subject, tmp_path, started):
    tried = campaign.Campaign(tmp_path, tmp_path, frozenset([subject]))
    for number in (0, 5, 21, 44, 61, 80):
        name = f"faults/{subject}/operation/{number}"
        assert tried.one(name) == "", name
    assert tried.one(f"faults/{subject}/size/6") == ""


@pytest.mark.parametrize(
    ("subject", "module"),
    [("puffer-download", "memento_puffer"), ("datacenter-simulate", "memento_datacenter")],
)
def test_stand_ins(subject, module, tmp_path, started):
    pytest.importorskip(module)
    tried = campaign.Campaign(tmp_path, tmp_path, frozenset([subject]))
    for name in (f"kills/{subject}/12", f"kills/{subject}/1", f"faults/{subject}/read-only/0"):
        assert tried.one(name) == "", name


@pytest.mark.parametrize("name", ["memory-export/memory/1", "memory-init/read-only/0"])
def test_limits(name, tmp_path, started):
    assert campaign.Campaign(tmp_path, tmp_path).one(f"faults/{name}") == ""


@pytest.mark.parametrize("kind", ["writers", "threads", "forked"])
def test_several_at_once(kind, tmp_path, started):
    assert campaign.Campaign(tmp_path, tmp_path).one(f"faults/{kind}/2/0") == ""


def test_bad_input(tmp_path, started):
    kinds = ["constructors"] * 60 + ["methods"] * 60 + ["sealed", "damaged", "tables"] * 10
    names = [f"inputs/{kind}/{number}" for number, kind in enumerate(kinds)]
    found = dict(inputs.attempts(names, tmp_path))
    assert not {name: text for name, text in found.items() if text}
    assert len(found) == len(names)


#: Kinds and numbers of trials, those first that found something.
FOREIGN = {
    "predictors": (14, 0, 1, 2), "git": (29, 65, 95, 149, 2054), "ns3-results": (20, 49, 159, 0, 1),
    "ns3-records": (8, 11, 20, 0, 1), "archives": range(12), "bombs": (0, 2, 7, 11),
    "states": (20, 40, 91, 178, 192, 229, 420, 1039), "everything": (*range(100), 323),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_input_of_others(kind, tmp_path, started):
    pytest.importorskip("torch")
    if kind not in inputs.kinds():
        pytest.skip("its case is not installed")
    found = dict(inputs.attempts([f"inputs/{kind}/{n}" for n in FOREIGN[kind]], tmp_path))
    assert not {name: text for name, text in found.items() if text}
    assert len(found) == len(FOREIGN[kind])


def test_a_soak_of_eight_units(tmp_path):
    for part in (soak.loop, soak.deployment):
        facts = part(tmp_path / part.__name__, 8)
        assert len(facts) == soak.PARTS
        assert "descriptors" not in soak.grown(facts)
        assert facts[-1]["files"] > 0


def test_a_violation_is_found_and_counted(tmp_path, monkeypatch, started):
    """What the campaign would not see proves nothing."""

    def broken(chance, folder):
        raise KeyError("not an error of ours")

    monkeypatch.setitem(inputs.SHARES, "methods", 0)
    monkeypatch.setattr(calls, "methods", broken)
    ((_, text),) = inputs.attempts(["inputs/methods/0"], tmp_path)
    assert "KeyError" in text
    tried = campaign.Campaign(tmp_path, tmp_path)
    tried.record("inputs/methods/0", text, 0.1)
    again = campaign.Campaign(tmp_path, tmp_path)
    assert "| inputs/methods | 1 | 0 | 1 |" in again.report()
