"""Files that workers open by path, on whichever node they run."""

from collections.abc import Collection
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ablate.errors import BadInput


def check_reachable(paths: Collection[Path]) -> None:
    """Check that every node of the cluster has the files that workers open by path.

    Args:
        paths: The files, which are here.

    Raises:
        BadInput: A node has not.
    """
    sizes = {path: path.stat().st_size for path in paths}

    def lacking() -> list[str]:
        return [str(path) for path, size in sizes.items() if not path.exists() or path.stat().st_size != size]

    for node in ray.nodes() if paths else ():
        if not node["Alive"]:
            continue
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        if lacked := ray.get(ray.remote(lacking).options(num_cpus=0, scheduling_strategy=there).remote()):
            rule = f"images that are larger than memory must be on every node, but {lacked[0]!r} is not"
            advice = "set ABLATE_CACHE to a folder that all nodes share, or give a smaller ?size"
            raise BadInput(f"{rule} on {node['NodeManagerHostname']}; {advice}")
