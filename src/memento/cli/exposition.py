"""What Prometheus collects: a textfile for its node exporter, in the text exposition format 0.0.4.

Names of metrics and their labels are fixed, since dashboards and alerts are written for them. What
is not known has no line, so that an alert on its absence works.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memento.errors import SettingError
from memento.files import atomic_write, local_path, storage_errors
from memento.memory import Memory

__all__ = ["check", "of_deployment", "of_memory", "write"]

# Every label is a series that is stored for ever.
_CLASSES = 100
_STATES = ("done", "missing", "late", "refused", "failed")
_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})

# Name of a metric (counters end in _total), what it is, further labels, and the value if known.
Found = Iterator[tuple[str, str, dict[str, str], float | None]]


def check(file: Path) -> None:
    """Refuse a name that the node exporter would not read, before there is anything to write.

    Raises:
        SettingError: It ends in something else than ``.prom``.
    """
    if local_path(file, "--prometheus").suffix != ".prom":
        raise SettingError(
            f"--prometheus {file}: the node exporter reads only files that end in .prom; call it "
            f"{file.with_suffix('.prom').name}"
        )


def write(file: Path, own: Mapping[str, str], found: Found) -> None:
    """Replace a textfile, all at once.

    Args:
        file: Its name ends in ``.prom``.
        own: Labels of all samples.
        found: What `of_memory` or `of_deployment` tells.

    Raises:
        StorageError: It cannot be written; an older one stays as it was.
    """
    lines: dict[str, list[str]] = {}
    for name, about, further, value in found:
        if value is not None and not math.isnan(value):
            kind = "counter" if name.endswith("_total") else "gauge"
            head = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            said = ",".join(f'{key}="{_escaped(text)}"' for key, text in {**own, **further}.items())
            lines.setdefault(name, head).append(f"{name}{{{said}}} {float(value)!r}")
    text = "".join(f"{line}\n" for block in lines.values() for line in block)
    with storage_errors("write", file):
        atomic_write(file, text.encode())


def of_memory(memory: Memory, facts: Mapping[str, Any], folder: Path) -> Found:
    """What a memory is, and whether retraining is due.

    Args:
        memory: Any.
        facts: What `memento memory status --json` prints.
        folder: Where it is stored.
    """
    ages, recent = memory.inserts - memory.arrivals, memory.recent
    decided, rise = facts["decision"] or {}, facts.get("coverage") or {}
    with storage_errors("read", folder):
        changed = (folder / "manifest.json").stat().st_mtime
    values = {
        "samples": ("Samples held", len(memory)),
        "capacity": ("Most samples that may be held", memory.capacity),
        "seen_total": ("Samples offered so far", memory.seen),
        "inserts_total": ("Inserts so far", memory.inserts),
        "weight": ("Samples of the stream that those held stand for", facts["weight"]),
        "age_inserts_median": ("Median age in inserts", np.median(ages) if len(ages) else None),
        "age_inserts_max": ("Largest age in inserts", ages.max() if len(ages) else None),
        "waiting_samples": ("Samples held that wait for a label", facts["waiting"]),
        "last_insert_timestamp_seconds": ("When the newest unit came", recent and recent.came_at),
        "changed_timestamp_seconds": ("When anything of it was changed last", changed),
        "trained_samples": ("Samples held at the last training", facts["trained"]),
        "retraining_due": ("1 if retraining is due, else 0", decided.get("due")),
        "retraining_value": ("What the decision compares", decided.get("value")),
        "retraining_threshold": ("Value at which it is due", decided.get("threshold")),
        "retraining_p_value": ("Of such arrivals without a change", decided.get("p_value")),
        "retraining_new_share": ("Share of arrivals that is new", decided.get("new")),
        "coverage_increase": ("Since the last training, 0 to 1", rise.get("increase")),
    }
    about = {"policy": str(facts["policy"]["kind"]), "model": facts["model"] or ""}
    yield "memento_memory_info", "Policy, and digest of the model; always 1", about, 1
    for name, (words, value) in values.items():
        yield f"memento_memory_{name}", words, {}, value
    words = f"Samples held by label, of a column the {_CLASSES} most frequent"
    for column, counts in facts["composition"].items():
        by_label = dict(enumerate(counts)) if isinstance(counts, list) else counts
        for label, count in sorted(by_label.items(), key=lambda item: -item[1])[:_CLASSES]:
            labels = {"column": column, "label": str(label)}
            yield "memento_memory_class_samples", words, labels, count


def of_deployment(variants: Mapping[str, Mapping[str, Any]]) -> Found:
    """What serves, and what became of the days of each variant.

    Args:
        variants: What `memento deploy status --json` prints of them.
    """
    for name, facts in variants.items():
        own, days, about = {"variant": name}, facts["days"], "memento_deployment_"
        if facts["serving"]:
            version = {**own, "version": facts["serving"]}
            yield f"{about}serving_info", "Version that serves; always 1", version, 1
        yield f"{about}versions", "Versions that are kept", own, len(facts["versions"])
        for state in _STATES:
            count = sum(day["state"] == state for day in days)
            yield f"{about}days", "Days by what became of them", {**own, "state": state}, count
        for key in ("trained", "published"):
            count = sum(bool(day[key]) for day in days)
            yield f"{about}{key}_days", f"Days on which a model was {key}", own, count
        if days:
            failed, midnight = days[-1]["state"] == "failed", np.datetime64(days[-1]["day"], "s")
            yield f"{about}failing", "1 if the last day has failed, else 0", own, failed
            seconds = float(midnight.astype(np.int64))
            yield f"{about}last_day_timestamp_seconds", "Midnight (UTC) of that day", own, seconds


def _escaped(text: str) -> str:
    """A label's value as the format wants it, which is UTF-8 in any case."""
    return text.translate(_ESCAPES).encode(errors="backslashreplace").decode()
