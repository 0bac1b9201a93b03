"""Calls from Python with arguments that nobody means, of all that the reference documents."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import memento
import test_hostile as hostile
from memento import Memory, Reservoir, Samples
from memento.errors import MementoError
from torture.trial import Violation

NAMES = [
    "", " ", "a/b", "../up", "/etc/passwd", "a\0b", "\x1b[31mred\x1b[0m", "<script>alert(1)</script>",
    "x" * 4000, "--help", "-", ".", "..", "a\nb", "\r", "\u202egnp.exe", "naïve", "\ud800", "a,b", '"', "'",
    "%s%n", "{0}", "$(id)", "`id`", "CON", "nul.txt", "a:b", "a*b", "[a]", "a]b", "~", "{}", "\x07", "\x9b31m",
]  # fmt: skip
ARRAYS: list[Callable[[random.Random], Any]] = [
    lambda r: np.full(r.choice([0, 1, 7]), np.nan),
    lambda r: np.zeros((r.choice([0, 3]), 0)),
    lambda r: np.array([None, "a", 1.5], dtype=object),
    lambda r: np.array(["2024", "NaT"], "M8[D]"),
    lambda r: np.zeros(3, dtype=[("a", "f8")]),
    lambda r: np.array(5),
    lambda r: np.full((4, 3), r.choice([np.inf, -np.inf, 1e308, -1.0])),
    lambda r: np.ma.masked_array([1.0, 2.0, 3.0], [0, 1, 0]),
    lambda r: np.arange(12.0).reshape(3, 4)[:, ::-2],
    lambda r: np.array([1 + 1j, 2, 3]),
    lambda r: [[1, 2], [3]],
    lambda r: "abc",
    lambda r: {"y": [1, 2], "z": [1]},
    lambda r: {r.choice(NAMES): [1, 2, 3]},
    lambda r: object(),
    lambda r: range(4),
    lambda r: (i for i in range(3)),
    lambda r: np.array([2**63 - 1, -(2**63)]),
    lambda r: np.array([2**64 - 1], np.uint64),
    lambda r: np.float16([np.inf, 1.0]),
    lambda r: b"abc",
]


def hostile_value(chance: random.Random) -> Any:
    """Numbers, names, containers and arrays that nobody means."""
    kind = chance.randrange(3)
    if kind == 0:
        return chance.choice(hostile.VALUES)
    return chance.choice(NAMES) if kind == 1 else chance.choice(ARRAYS)(chance)


# ------------------------------------------------------------------------------- calls from Python


def _constructors() -> list[Callable[..., Any]]:
    named = [*memento.named_policies.values(), *memento.named_triggers.values()]
    parts: list[Callable[..., Any]] = [
        memento.Minkowski, memento.Custom, memento.SampleSpace, memento.Group, memento.Memory,
        memento.recommended_policy, memento.trigger,
    ]  # fmt: skip
    for family in (
        memento.JensenShannon,
        memento.Wasserstein,
        memento.SlicedWasserstein,
        memento.Metric,
    ):
        parts += [getattr(family, name) for name in dir(family) if name.startswith("of_")]
    return [*dict.fromkeys([*named, *parts])]


def _valid() -> dict[str, Any]:
    space = memento.Memento([memento.JensenShannon.of_labels("y", 3)], batch_size=4)
    return {
        "column": "y", "capacity": 40, "policy": Reservoir(), "samples": 10, "kind": "every", "classes": 3,
        "memories": {"a": Memory(9, Reservoir())}, "summary": np.mean, "distance": lambda a, b: abs(a - b),
        "points": 9, "support": np.linspace(0, 1, 9), "mean": "y", "std": "loss", "low": 0.0, "high": 1.0, "space": space,
    }  # fmt: skip


def constructors(chance: random.Random, folder: Path) -> None:
    """Each public class and factory, one to three arguments of it hostile; then it is used."""
    del folder
    made = chance.choice(_constructors())
    parameters = inspect.signature(made).parameters
    valid = _valid()
    needed = {n: valid[n] for n, p in parameters.items() if p.default is p.empty and n in valid}
    names = [n for n, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    for name in chance.sample(names, min(len(names), chance.randint(1, 3))):
        needed[name] = hostile_value(chance)
    with contextlib.suppress(MementoError):
        thing = made(**needed)
        if isinstance(thing, memento.Policy):
            memory = Memory(20, thing)
            memory.insert(hostile.samples(30))
        elif isinstance(thing, Memory):
            thing.insert(hostile.samples(30))
        repr(thing)


def methods(chance: random.Random, folder: Path) -> None:
    """Public functions and methods of a memory with hostile samples and settings."""
    policy = chance.choice(list(hostile.POLICIES.values()))
    memory = Memory(chance.choice([5, 20, 60]), policy, seed=chance.randrange(99))
    with contextlib.suppress(MementoError):
        memory.insert(hostile.samples(30))
        memory.mark_trained()
    before = _content(memory)
    value = hostile_value(chance)
    column = chance.choice(["y", "x", "yhat", "loss", "id", "new", *NAMES[:6]])
    good = hostile.samples(5)
    calls: list[Callable[[], Any]] = [
        lambda: memory.insert(value),
        lambda: memory.insert({**good, column: value}),
        lambda: memory.insert({**good, column: _hostile_like(good.get(column), chance)}),
        lambda: memory.annotate(**{column: value}),
        lambda: memory.label(value, y=value),
        lambda: memory.sample(value, rng=np.random.default_rng(0)),
        lambda: memory.get(value),
        lambda: memory.why(value),
        lambda: Samples(value),
        lambda: Samples({column: value}),
        lambda: memento.make_batches(Samples(good), value, [column]),
        lambda: memento.sort_order(Samples(good), value),
        lambda: memento.batch_densities(value, policy),
        lambda: memento.coverage_increase(value, good, policy),
        lambda: memento.coverage_increase(good, good, value),
        lambda: memento.observe(memory, value),
        lambda: memento.observe(memory, good, value),
        lambda: memento.log_scores(value),
        lambda: memento.read_steps(value),
        lambda: memory.merge(value),
        lambda: (
            memory.save(value) if isinstance(value, (str, bytes)) and len(value) > 3000 else None
        ),
        lambda: Memory.load(value),
        lambda: memento.backtest([("a", value)], lambda seed: None),
        lambda: list(memento.run([("a", value)], memory, value)),
    ]
    number = chance.randrange(len(calls))
    raised = False
    try:
        calls[number]()
    except MementoError:
        raised = True
    if raised and number < 5 and _content(memory) != before:
        raise Violation(f"a refused call ({number}) changed the memory")


def _hostile_like(good: Any, chance: random.Random) -> Any:
    """An array that could be right, but for a few of its values or its shape."""
    if good is None:
        return hostile_value(chance)
    kinds = [object, good.dtype, *([float, np.float16] if good.dtype.kind in "biuf" else [])]
    array = np.array(good, dtype=chance.choice(kinds))
    if not array.ndim:
        return array
    if array.size and array.dtype != object:
        with contextlib.suppress(ValueError, OverflowError):
            array.reshape(-1)[chance.randrange(array.size)] = chance.choice(
                [np.nan, np.inf, -1, 1e300, 7]
            )
    elif array.size:
        array.reshape(-1)[0] = chance.choice([None, "a", 2**70, object()])
    return array[: chance.choice([len(array), 1, 0])] if chance.random() < 0.3 else array


def _content(memory: Memory) -> object:
    held = memory.samples
    return (memory.inserts, memory.seen, {n: np.asarray(held[n]).tobytes() for n in held})


# ------------------------------------------------------------------------------ all that is public

REFERENCE = Path(__file__).parents[1] / "docs" / "api"
#: What only the library itself makes: records of what came of something, and views of a state.
RECORDS = {
    "Backtest", "Batches", "Choice", "CoverageIncrease", "DayRecord", "Decision", "DeploymentSettings", "Gain",
    "GroupReport", "Held", "Moment", "Report", "Selected", "Situation", "State", "Step", "Switch", "Trial", "Variant",
    "VariantState", "Verdict", "Version",
}  # fmt: skip


@cache
def public() -> dict[str, Callable[..., Any]]:
    """Functions and classes by name, as the pages of the reference list them."""
    found: dict[str, Any] = {}
    for page in sorted(REFERENCE.glob("*.md")):
        for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.M):
            with contextlib.suppress(MementoError):  # an adapter whose library is not here
                thing = _named(name)
                if inspect.ismodule(thing):
                    found |= {f"{name}.{part}": getattr(thing, part) for part in thing.__all__}
                else:
                    found[name] = thing
    return {
        name: thing
        for name, thing in sorted(found.items())
        if name.rpartition(".")[2] not in RECORDS and _parameters(thing) is not None
    }


def _named(name: str) -> Any:
    words = name.split(".")
    for end in range(len(words), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            thing = importlib.import_module(".".join(words[:end]))
            for word in words[end:]:
                thing = getattr(thing, word)
            return thing
    raise AssertionError(f"the reference lists {name}, which is not there")


def _parameters(made: Any) -> list[inspect.Parameter] | None:
    """Those that can be given by name; None for what takes none or is no function of ours."""
    if not callable(made) or not str(getattr(made, "__module__", "")).startswith("memento"):
        return None
    if made.__module__ == "memento.errors":  # for those who raise them
        return None
    if inspect.isclass(made) and (
        issubclass(made, BaseException)
        or inspect.isabstract(made)
        or getattr(made, "_is_protocol", False)
    ):
        return None
    with contextlib.suppress(ValueError, TypeError):
        return [
            p
            for p in inspect.signature(made).parameters.values()
            if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        ]
    return None


def _fitting(folder: Path) -> dict[str, Callable[[], Any]]:
    """For each name of a parameter something that fits; made when it is needed."""
    from memento.testing import ConstantLearner

    day = lambda: Samples(hostile.samples(30))  # noqa: E731
    label = lambda: ConstantLearner("y", hostile.CLASSES)  # noqa: E731

    def memory() -> Memory:
        made = Memory(40, Reservoir())
        made.insert(day())
        return made

    def stored() -> Path:
        memory().save(folder / "mem")
        return folder / "mem"

    def days() -> list[str]:
        path = folder / "day.parquet"
        if not path.exists():
            import pyarrow as pa
            from pyarrow import parquet

            parquet.write_table(pa.table({k: v for k, v in day().items() if v.ndim == 1}), path)
        return [str(path)]

    simple: dict[str, Any] = {
        **_valid(), "seed": 0, "rng": 0, "batch_size": 4, "classes": 3, "sort_by": ["y"], "estimator": "calibrated",
        "label": "y", "loss": "loss", "units": 1, "unit": 0, "factor": 2.0, "capacity": 20, "seeds": 1,
        "level": 0.9, "tolerance": 0.02, "differences": np.ones(5), "values": np.arange(5.0), "found": {}, "wanted": {},
        "group": "g", "name": "n", "body": "math:sqrt", "parameters": {}, "root": folder / "root", "workers": 1, "controls": False,
        "permutations": 9, "prediction": "yhat", "sql": "select 1", "uri": "sqlite://", "address": str(folder), "block_rows": 50,
        "function": lambda x: x[:, :1], "version": "1", "data": b"", "state": {}, "patience": 1, "members": 2,
        "order": np.arange(3), "offsets": np.array([0, 3]), "rows": 5, "when": "after", "reason": "", "triggers": {"never": memento.Never()},
        "policies": {"a": Reservoir()}, "experiments": [], "cluster": "y", "learning_rate": 1e-3, "epochs": 1, "max_epochs": 1,
    }  # fmt: skip
    made: dict[str, Callable[[], Any]] = {
        "memory": memory, "samples": day, "reference": day, "source": day, "served": day, "before": day,
        "learner": label, "candidate": label, "make_learner": lambda: lambda seed: label(), "estimator": _estimator,
        "stream": lambda: [(f"u{i}", day()) for i in range(2)], "to": lambda: folder / "to", "paths": days,
        "folder": stored, "path": stored, "make_memory": lambda: lambda: Memory(9, Reservoir()), "steps": list,
        "trigger": lambda: memento.Every(1), "policy": Reservoir, "memory_or_folder": memory, "arrivals": lambda: None,
        "parts": lambda: (day(),), "contents": lambda: memory()._contents, "work_tree": lambda: folder,
    }  # fmt: skip
    return {**{name: lambda value=value: value for name, value in simple.items()}, **made}


def _estimator() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression()


def _call(made: Callable[..., Any], chance: random.Random, folder: Path) -> Any:
    """Call with what fits where something is needed, and with up to three values that do not."""
    parameters = _parameters(made) or []
    fitting = _fitting(folder)
    given = {
        p.name: fitting[p.name]() if p.name in fitting else hostile_value(chance)
        for p in parameters
        if p.default is p.empty or (p.name in fitting and chance.random() < 0.2)
    }
    for p in chance.sample(parameters, min(len(parameters), chance.randint(0, 3))):
        good = given.get(p.name)
        given[p.name] = (
            _hostile_like(good, chance)
            if isinstance(good, np.ndarray) and chance.random() < 0.5
            else hostile_value(chance)
        )
    first = [given.pop(p.name) for p in parameters if p.kind is p.POSITIONAL_ONLY and p.name in given]  # fmt: skip
    result = made(*first, **given)
    if inspect.isgenerator(result):
        for _, _ in zip(range(20), result, strict=False):
            pass
    return result


def everything(chance: random.Random, folder: Path) -> None:
    """Whatever the reference documents, called; then methods and properties of what comes of it."""
    name = chance.choice(list(public()))
    # Proofs fail by AssertionError, and what scikit-learn checks by its own.
    ours = (
        MementoError,
        *((AssertionError,) if "testing" in name else ()),
        *((ValueError, TypeError) if "imblearn" in name else ()),
    )
    with contextlib.chdir(folder), contextlib.suppress(*ours):
        made = _call(public()[name], chance, folder)
        called_by_us = (memento.Policy, memento.Trigger, memento.Distance)
        if not type(made).__module__.startswith("memento") or isinstance(made, called_by_us):
            return
        for _ in range(3):
            part = chance.choice([n for n in dir(made) if not n.startswith("_")])
            with contextlib.suppress(MementoError):
                value = getattr(made, part, None)
                if callable(value) and _parameters(value) is not None:
                    _call(value, chance, folder)
            repr(made)
