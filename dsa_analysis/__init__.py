"""Do two dynamical systems compute alike? Trajectories -> delay embedding -> linear operators -> distances with certificates.

    similarity = compare({"a": recording_a, "b": recording_b}, n_delays=10, rank=10)
    similarity.distances, similarity.lower_bounds

Arrays are (n_trials, n_times, n_channels); see `compare`. The method is Dynamical Similarity Analysis (Ostrow et al. 2023).
"""

from dsa_analysis.alignment import Alignment, align
from dsa_analysis.baselines import cka_distance, procrustes_distance
from dsa_analysis.compare import ComparisonParameters, Similarity, compare
from dsa_analysis.data import DataError
from dsa_analysis.dmd import EmbeddingParameters, Operator, fit_operator, singular_spectrum
from dsa_analysis.embedding import delay_embed
from dsa_analysis.inference import auroc, mean_interval, noise_floor, silhouette
from dsa_analysis.spectra import spectral_distance
from dsa_analysis.systems import LorenzRegime, lorenz, record_regimes, simulate, trajectories, transformed_copies

__all__ = [
    "Alignment",
    "ComparisonParameters",
    "DataError",
    "EmbeddingParameters",
    "LorenzRegime",
    "Operator",
    "Similarity",
    "align",
    "auroc",
    "cka_distance",
    "compare",
    "delay_embed",
    "fit_operator",
    "lorenz",
    "mean_interval",
    "noise_floor",
    "procrustes_distance",
    "record_regimes",
    "silhouette",
    "simulate",
    "singular_spectrum",
    "spectral_distance",
    "trajectories",
    "transformed_copies",
]
