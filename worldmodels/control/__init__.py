r"""Policies: what acts, in a real world or in a dreamed one (Bai et al., 2025, arXiv 2510.20668, section 2.2).

$$a \sim \pi(a \mid z, h)$$

    policy.initial(batch)                          -> policy_state, leaves (B, ...)
    policy(params, belief, policy_state, keys_B)   -> action_B, policy_state, extras

`belief` is what the policy may know of the present: a model's `types.Belief` in a dream, a
`worldmodels.interaction.Moment` in a world (a policy that acts on a model's belief keeps that belief in its
policy_state and ticks the model itself). Keys are one per example. `extras` is a dict of arrays (B, ...) worth
recording. Where an episode begins, the caller gives the initial policy_state. Policies are hashable values: frozen
dataclasses.
"""
