r"""The world's own actions, as they were recorded: $a$ of $(o, a, r)$ in RLDS (Ramos et al., 2021, arXiv 2111.02767)."""

from __future__ import annotations

import flax.linen as nn

from worldmodels.types import ActionSpace, Spec


class Given(nn.Module):
    """Nothing to learn: a dream takes what the world takes."""

    spec: Spec

    latent = False

    @property
    def space(self) -> ActionSpace:
        return self.spec.action
