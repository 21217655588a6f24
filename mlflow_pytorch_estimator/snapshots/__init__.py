"""Source snapshots: what runs is what was submitted, whatever is edited meanwhile.

``take`` stores the files of a project once under ``$GPU_CLUSTER_HOME/snapshots`` and returns a digest, ``restore``
makes a private working copy of it on the node, ``prune`` removes what no job needs any more.

    walk     which files belong to the sources      ignore   what the ignore files say
    index    what a project was when last taken      tree     the list of files behind a digest
    store    where things lie, and the locks         blobs    how contents get in
    packs    many small files in one                 copying  how large files are copied

Everything here stands on the standard library alone, because nodes restore before they have anything else.
"""

from mlflow_pytorch_estimator.snapshots.prune import prune
from mlflow_pytorch_estimator.snapshots.restore import restore
from mlflow_pytorch_estimator.snapshots.take import Snapshot, take

__all__ = ["Snapshot", "prune", "restore", "take"]
