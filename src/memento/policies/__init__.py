"""Policies: which samples a memory keeps. One idea a file."""

from memento.policies._policy import (
    Choice,
    Policy,
    State,
    named_policies,
    policy_class,
    policy_from_settings,
)
from memento.policies._table import policy_from_table, short_distances
from memento.policies.class_balanced import ClassBalancedReservoir
from memento.policies.committee import QueryByCommittee
from memento.policies.density_reservoir import DensityReservoir
from memento.policies.facility_location import FacilityLocation
from memento.policies.fifo import FIFO
from memento.policies.gradient import GradientSampleSelection
from memento.policies.herding import Herding
from memento.policies.k_center import KCenterGreedy
from memento.policies.loss_aware import LossAwareReservoir
from memento.policies.loss_reservoir import LossReservoir
from memento.policies.memento import Memento
from memento.policies.metric import Metric
from memento.policies.reservoir import Reservoir
from memento.policies.unbounded import Unbounded
from memento.policies.usual import recommended_policy, usual_distances, usual_policy
from memento.policies.window import DailyWindow

__all__ = [
    "FIFO",
    "Choice",
    "ClassBalancedReservoir",
    "DailyWindow",
    "DensityReservoir",
    "FacilityLocation",
    "GradientSampleSelection",
    "Herding",
    "KCenterGreedy",
    "LossAwareReservoir",
    "LossReservoir",
    "Memento",
    "Metric",
    "Policy",
    "QueryByCommittee",
    "Reservoir",
    "State",
    "Unbounded",
    "named_policies",
    "policy_class",
    "policy_from_settings",
    "policy_from_table",
    "recommended_policy",
    "short_distances",
    "usual_distances",
    "usual_policy",
]
