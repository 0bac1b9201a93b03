"""Selection from more rows than fit into memory, on one machine or many.

    from memento import JensenShannon, Memento, scale

    policy = Memento([JensenShannon.of_probabilities("yhat"), JensenShannon.of_labels("y", 21)])
    report = scale.select("days/*.parquet", 1_000_000, policy, to="held")

    blocks       files, and the pieces of them that are read at a time
    layouts      how rows of numbers lie in Parquet files
    predictions  models that predict while blocks are read
    passes       what a worker does with a block
    decide       what stays, from summaries and ranks alone
    workers      this process, several, or (`dask`) a cluster
    partial      what a killed selection goes on from
    selection    the order of all that
    result       the folder that comes of it, and memories made from it
    rewrite      files in the layout that is read fastest

pyarrow and Dask are imported only by what needs them.
"""

from __future__ import annotations

from memento.scale.blocks import BLOCK_ROWS
from memento.scale.result import Selected, load
from memento.scale.rewrite import rewrite
from memento.scale.selection import select

__all__ = ["BLOCK_ROWS", "Selected", "load", "rewrite", "select"]
