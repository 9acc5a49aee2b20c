r"""Actions: what a model is told was done, and where it learns of it.

$$a \in \mathbb R^A$$

(Bai et al., 2025, arXiv 2510.20668, section 2.2). Every other part sees action vectors (B, A), and the zero vector before an
opening; none asks where they come from.

`given` takes the world's own actions, as the data have them. `latent` finds as many kinds of change as it has `codes`, from
frames alone, and these are the actions: a model of a world learned from silent video can be played.

An action part has `space`, the `ActionSpace` of what a dream takes, and `latent`. Where `latent`, it also has `infer(before,
after)`, `losses(before, after, keys)` and `prior(frame)`; see `latent.Latent`.
"""

from worldmodels.action.given import Given
from worldmodels.action.latent import Latent

CONTRACT = ('space', 'latent')
"""What an action part of one's own gives; one that is `latent` also infer, losses and prior."""
KINDS = {'given': Given, 'latent': Latent}

SILENCE = (
    'Nothing is known of what was done in these data: the model learns how the world goes on by itself. '
    "model.action.kind='latent' would find actions in the frames, and the dream could be played."
)
"""What a person is told who trains on such data with the actions given."""
