"""The network that is trained: a timm backbone, branched, and heads."""
