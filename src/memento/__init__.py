"""Memento keeps the samples that matter and says when to retrain.

A bounded replay memory for models that learn from an endless stream: it discards where samples are
dense and keeps where they are rare, and compares what it covers now with what it covered at the
last training. After "On Sample Selection for Continual Learning: a Video Streaming Case Study"
(Dietmueller, Jacob, Vanbever; ACM SIGCOMM Computer Communication Review 54(2), 2024).

Example:
    >>> from memento import JensenShannon, Memento, Memory, coverage_increase
    >>> policy = Memento([JensenShannon.of_labels("y", classes=3)], batch_size=8, sort_by=["y"])
    >>> memory = Memory(capacity=64, policy=policy, seed=0)
    >>> memory.insert(y=[0] * 500 + [1] * 20 + [2] * 8).kept
    64
    >>> memory.mark_trained()
    >>> float(coverage_increase(memory.samples, memory.reference, policy, permutations=0))
    0.0
"""

from __future__ import annotations

import memento.scale  # noqa: F401 - memento.scale.select, without a further import
from memento.batching import Batches, make_batches, sort_order
from memento.coverage import CoverageIncrease, coverage_increase
from memento.density import SampleSpace, batch_densities
from memento.distances import (
    Custom,
    Distance,
    JensenShannon,
    Minkowski,
    Wasserstein,
    named_distances,
)
from memento.group import Group, GroupReport
from memento.learner import Checkpointable, Learner
from memento.loop import Moment, Step, log_scores, read_steps, run, table
from memento.memory import Memory, Report
from memento.observe import observe, reconsider, retrained
from memento.policies import (
    FIFO,
    Choice,
    ClassBalancedReservoir,
    DailyWindow,
    DensityReservoir,
    FacilityLocation,
    GradientSampleSelection,
    Herding,
    KCenterGreedy,
    LossAwareReservoir,
    LossReservoir,
    Memento,
    Metric,
    Policy,
    QueryByCommittee,
    Reservoir,
    State,
    Unbounded,
    named_policies,
    recommended_policy,
)
from memento.retrain import (
    Decision,
    Every,
    Never,
    OnArrivals,
    OnCount,
    OnCoverage,
    OnLoss,
    Situation,
    Trigger,
    named_triggers,
    trigger,
)
from memento.samples import Samples
from memento.sliced import SlicedWasserstein
from memento.study import Backtest, backtest

__version__ = "0.2.0"

__all__ = [
    "FIFO",
    "Backtest",
    "Batches",
    "Checkpointable",
    "Choice",
    "ClassBalancedReservoir",
    "CoverageIncrease",
    "Custom",
    "DailyWindow",
    "Decision",
    "DensityReservoir",
    "Distance",
    "Every",
    "FacilityLocation",
    "GradientSampleSelection",
    "Group",
    "GroupReport",
    "Herding",
    "JensenShannon",
    "KCenterGreedy",
    "Learner",
    "LossAwareReservoir",
    "LossReservoir",
    "Memento",
    "Memory",
    "Metric",
    "Minkowski",
    "Moment",
    "Never",
    "OnArrivals",
    "OnCount",
    "OnCoverage",
    "OnLoss",
    "Policy",
    "QueryByCommittee",
    "Report",
    "Reservoir",
    "SampleSpace",
    "Samples",
    "Situation",
    "SlicedWasserstein",
    "State",
    "Step",
    "Trigger",
    "Unbounded",
    "Wasserstein",
    "__version__",
    "backtest",
    "batch_densities",
    "coverage_increase",
    "log_scores",
    "make_batches",
    "named_distances",
    "named_policies",
    "named_triggers",
    "observe",
    "read_steps",
    "recommended_policy",
    "reconsider",
    "retrained",
    "run",
    "sort_order",
    "table",
    "trigger",
]
