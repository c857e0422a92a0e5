"""TreeLoRA: continual learning with low-rank adapters guided by a tree of task signatures.

The method of Qian et al., "TreeLoRA: Efficient Continual Learning via Layer-Wise LoRAs Guided by a
Hierarchical Gradient-Similarity Tree" (ICML 2025, arXiv 2506.10355), as a library of its own: it
needs torch and nothing else of this repository.

- `treelora.options`: every choice by name, and the presets `paper` and `released`;
- `treelora.signature`: what a task looks like, one vector per adapted matrix (section 3.3);
- `treelora.tree`: the K-D tree over finished tasks (equation 1);
- `treelora.search`: the lower-confidence-bound search for a similar task (equation 2) and others;
- `treelora.regulariser`: the penalty of equation 3, which joins them;
- `treelora.trainer_callback`, `treelora.avalanche_plugin`: the same for a Hugging Face Trainer and
  for Avalanche, each of which needs that library.
"""

from treelora.options import PRESETS, Options
from treelora.regulariser import TreeRegulariser
from treelora.tree import Node, build_tree

__all__ = ["PRESETS", "Node", "Options", "TreeRegulariser", "build_tree"]
