r"""Hearts: how a frame becomes tokens and tokens a frame.

$$o \to z, \qquad p(o \mid z, c)$$

(Bai et al., 2025, arXiv 2510.20668, section 2.2; c is the memory's context, which a tokenizer does not read).

A heart has `layout`, `classes` K (None where latents are numbers) and `embedding_size` E; `encode(observation)`,
`embed(index)` where there are classes, `decode(z, context)` and `render(prediction)`. A `tokenizer` encodes straight to a
`Latent`, since the frame alone decides its tokens, and has a loss of its own, `autoencode(observation, keys)`; any other
heart gives features (B, F) for the filter and is trained through the world model, by `losses(prediction, observation)`.
What is fitted instead of learned lives in `constants`.
"""

from worldmodels.heart.categorical import Categorical
from worldmodels.heart.continuous import Continuous
from worldmodels.heart.palette import Palette
from worldmodels.heart.tokens import Tokens

CONTRACT = ('layout', 'classes', 'embedding_size', 'tokenizer', 'encode', 'decode', 'render')
"""What a heart of one's own gives, `embed` unless its `classes` are None, and `autoencode` if it is a tokenizer, else
`losses`."""
KINDS = {'categorical': Categorical, 'tokens': Tokens, 'palette': Palette, 'continuous': Continuous}
