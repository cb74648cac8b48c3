"""The exact graph rewrite: layers, splits and branched backbones."""

from recon_search.graph.branch import branch
from recon_search.graph.branched import Block, BranchedBackbone
from recon_search.graph.cost import Cost, cost, layer_graph
from recon_search.graph.layers import LayerInfo, backbone_digest, describe, layers
from recon_search.graph.split import Split, load_counts

__all__ = [
    "Block",
    "BranchedBackbone",
    "Cost",
    "LayerInfo",
    "Split",
    "backbone_digest",
    "branch",
    "cost",
    "describe",
    "layer_graph",
    "layers",
    "load_counts",
]
