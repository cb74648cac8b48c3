"""The exact graph rewrite: layers, splits and branched backbones."""
