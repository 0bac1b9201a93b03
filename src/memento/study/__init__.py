"""Arms (a policy, a trigger, a wrapper of the learner) and seeds over a stream, in pairs.

`judges` says how good a model was on a unit, `intervals` how sure a difference is, and `engine`
runs the arms.
"""

from memento.study.engine import Backtest, backtest
from memento.study.intervals import Gain, paired
from memento.study.judges import measures

__all__ = ["Backtest", "Gain", "backtest", "measures", "paired"]
