r"""Transitions: over one tick's context and never the history (Bai et al., 2025, arXiv 2510.20668, section 2.2),

$$p(z' \mid z, a, c).$$

`predict(z, action, context)` computes once all that is known of the next frame; `loss(prediction, posterior, keys)`,
`sample(prediction, keys, **dials)` and, where `likelihood`, `log_prob(prediction, z)` go on from it. A transition
without likelihood trains on a stop-gradient posterior. Contexts may have no slots. `draws` says of which latents it
speaks, 'classes' (which goes without saying) or 'numbers'; `sample` gives their indices (B, N) or embeddings (B, N, E).
`DIALS` names those of its fields that `sample` also takes, to sample otherwise than the config says.
"""

from worldmodels.transition.autoregressive import Autoregressive
from worldmodels.transition.categorical import Categorical
from worldmodels.transition.flow import Flow
from worldmodels.transition.masked import Masked

CONTRACT = ('predict', 'loss', 'sample', 'likelihood')
"""What a transition of one's own gives."""
KINDS = {'categorical': Categorical, 'masked': Masked, 'autoregressive': Autoregressive, 'flow': Flow}
