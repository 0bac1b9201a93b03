"""The daily job that keeps any model up to date: insert, decide, train, check, publish."""

from memento.deployment.gate import Verdict, judge
from memento.deployment.git import mirror_to_git
from memento.deployment.job import Deployment, Reader
from memento.deployment.publication import ModelFiles, Publication, Switch, Version
from memento.deployment.settings import DeploymentSettings, Variant, from_toml
from memento.deployment.state import DayRecord, VariantState

__all__ = [
    "DayRecord",
    "Deployment",
    "DeploymentSettings",
    "ModelFiles",
    "Publication",
    "Reader",
    "Switch",
    "Variant",
    "VariantState",
    "Verdict",
    "Version",
    "from_toml",
    "judge",
    "mirror_to_git",
]
