"""The daily job that keeps any model up to date: insert, decide, train, check, publish."""

from memento.deployment.gate import Verdict, judge
from memento.deployment.job import Deployment, Reader
from memento.deployment.publication import Publication
from memento.deployment.settings import DeploymentSettings, Variant, from_toml
from memento.deployment.state import DayRecord, VariantState

__all__ = [
    "DayRecord",
    "Deployment",
    "DeploymentSettings",
    "Publication",
    "Reader",
    "Variant",
    "VariantState",
    "Verdict",
    "from_toml",
    "judge",
]
