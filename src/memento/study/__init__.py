"""Arms (a policy, a trigger, a wrapper of the learner) and seeds over a stream, in pairs.

`judges` says how good a model was on a unit, `intervals` how sure a difference is, `engine`
compares arms, `verdict` says what follows, and `trial` asks all of it of a stream. `runs` is how
any comparison gets its runs done: in this process or in several, each once.
"""

from memento.study.engine import Backtest, backtest
from memento.study.intervals import Gain, interval, paired
from memento.study.judges import measures
from memento.study.runs import difference, finished, read_results, run_all
from memento.study.trial import Trial, try_stream

__all__ = [
    "Backtest",
    "Gain",
    "Trial",
    "backtest",
    "difference",
    "finished",
    "interval",
    "measures",
    "paired",
    "read_results",
    "run_all",
    "try_stream",
]
