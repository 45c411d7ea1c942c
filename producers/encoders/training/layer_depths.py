"""How deep each weight of a checkpoint's towers lies, for learning rates that fall from layer to layer."""

import re
from collections.abc import Sequence

LAYER = re.compile(r"(?P<tower>[^.]+\.[^.]+)\..*\blayers?\.(?P<number>\d+)\.")
"""A weight of a layer, such as `model.vision_model.encoder.layers.3.mlp.fc1.weight`: its tower and the layer."""
BELOW = re.compile(r"(?P<tower>[^.]+\.[^.]+)\.(.*embed|pre_la)")
"""A weight below all layers of its tower: embeddings, and their normalization."""


def measure_depths(names: Sequence[str]) -> dict[str, int]:
    """Return how many layers of its tower are above each weight, a layer of its own included.

    Args:
        names: the names of the weights of both towers.

    Returns:
        Name to number, in the order of `names`: 0 for what is above the layers, such as projections, and for towers
        without layers; 1 for the top layer; one more than there are layers for embeddings.
    """
    layers = {name: match for name in names if (match := LAYER.match(name))}
    counts: dict[str, int] = {}
    for match in layers.values():
        counts[match["tower"]] = max(counts.get(match["tower"], 0), int(match["number"]) + 1)
    depths = {}
    for name in names:
        if match := layers.get(name):
            depths[name] = counts[match["tower"]] - int(match["number"])
        elif (below := BELOW.match(name)) and below["tower"] in counts:
            depths[name] = counts[below["tower"]] + 1
        else:
            depths[name] = 0
    return depths
