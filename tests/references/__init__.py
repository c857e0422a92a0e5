"""Each method once more, written down from its paper: equations and loops on the plain backbone.

Nothing here comes from baselines/ or treelora/. A reference is a generator that learns the tasks of
its `Start` one after the other and yields, after each, the function from x to logits. Batches and
random draws are those of the seed that `tiny.learn` sets, in the order in which the method under
test draws them. Attention is written out, and texts are never padded, which those of the method
under test are.
"""

from tests.references import (
    adapters,
    ease,
    hide,
    merging,
    mixtures,
    prompts,
    replay,
    subspaces,
    trees,
    untrained,
)
from tests.references.common import Start

__all__ = ["REFERENCES", "Start"]

# By the method's name, with the modality where it is another one there.
REFERENCES = {
    "codaprompt": prompts.codaprompt,
    "derpp": replay.derpp,
    "dualprompt": prompts.dualprompt,
    "ease": ease.ease,
    "ewc": adapters.ewc,
    "fix": untrained.fix,
    "gem": adapters.gem,
    "hidelora": hide.hidelora,
    "hidelora language": mixtures.hidelora,
    "hideprompt": hide.hideprompt,
    "hidetreelora": hide.hidetreelora,
    "inflora": subspaces.inflora,
    "joint": adapters.seqlora,
    "l2p": prompts.l2p,
    "magmax": merging.magmax,
    "ogd": adapters.ogd,
    "olora": adapters.olora,
    "ranpac": untrained.ranpac,
    "sapt": mixtures.sapt,
    "sdlora": subspaces.sdlora,
    "seqlora": adapters.seqlora,
    "seqlora vision": hide.aligned(adapters.seqlora),
    "tasl": adapters.tasl,
    "treelora": trees.treelora,
    "treelora vision": hide.aligned(trees.treelora),
}
