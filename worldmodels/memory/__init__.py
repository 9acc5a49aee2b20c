r"""Memories: everything that carries history, and nothing else does. The contract is `base.Memory`.

$$h_t, c_t = f(h_{t-1}, z_t, a_{t-1})$$

(Bai et al., 2025, arXiv 2510.20668, section 2.2; c is the context, all that others see of h).

`step` is for acting and `sequence` for training; one meaning, resets anywhere. Outside a memory only its context (B,
M, D) is seen.
"""

from worldmodels.memory.compressive import Compressive
from worldmodels.memory.masked import Masked
from worldmodels.memory.none import Nothing
from worldmodels.memory.recurrent import Recurrent
from worldmodels.memory.retrieval import Retrieval
from worldmodels.memory.stack import Stack
from worldmodels.memory.state_space import StateSpace
from worldmodels.memory.window import Window

CONTRACT = ('initial', 'step', 'sequence', 'slots', 'width')
"""What a memory of one's own gives; the rest it inherits from `base.Memory`."""
KINDS = {
    'none': Nothing,
    'recurrent': Recurrent,
    'state_space': StateSpace,
    'compressive': Compressive,
    'masked': Masked,
    'retrieval': Retrieval,
    'stack': Stack,
    'window': Window,
}
