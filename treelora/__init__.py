"""TreeLoRA: continual learning with low-rank adapters guided by a tree of task signatures.

The method of Qian et al., "TreeLoRA: Efficient Continual Learning via Layer-Wise LoRAs Guided by a
Hierarchical Gradient-Similarity Tree" (ICML 2025, arXiv 2506.10355), as a library of its own: it
needs torch and nothing else of this repository.

- `treelora.signature`: what a task looks like, one vector per adapted matrix (section 3.3);
- `treelora.tree`: the K-D tree over finished tasks (equation 1);
- `treelora.bandit`: the lower-confidence-bound search for a similar task (equation 2);
- `treelora.regulariser`: the penalty of equation 3, which joins the three.
"""

from treelora.bandit import TreeSearch
from treelora.regulariser import TreeRegulariser
from treelora.signature import Signature, adapted_parameters
from treelora.tree import Node, build_tree

__all__ = ["Node", "Signature", "TreeRegulariser", "TreeSearch", "adapted_parameters", "build_tree"]
