# SPDX-License-Identifier: MIT
"""Pictures of a training, a model and its scores, drawn by matplotlib: `fusedvae.plot.training_curves(history)`, …

Each function draws on `ax`, or on the one axes of a new figure where it is None, and returns the axes; `.figure` of it
is what to show in a notebook or to save. pyplot and its global state are never touched. Losses, scores and KLs are in
nats per row. Colours are told apart by colour-blind readers too, and images are shown in the grey scale of the
first ones given.
"""

from .codes import embedding, kl_by_dimension
from .curves import score_histogram, training_curves
from .images import latent_grid, reconstructions, samples, traversals

__all__ = [
    "embedding",
    "kl_by_dimension",
    "latent_grid",
    "reconstructions",
    "samples",
    "score_histogram",
    "training_curves",
    "traversals",
]
