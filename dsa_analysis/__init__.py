"""Do two dynamical systems compute alike? Trajectories -> delay embedding -> operators -> distances with certificates.

    similarity = compare({"a": recording_a, "b": recording_b}, n_delays=10, rank=10)
    similarity.distances, similarity.lower_bounds

Arrays are (n_trials, n_times, n_channels); see `compare`. The method is Dynamical Similarity Analysis (Ostrow et al.
2023).
"""

from dsa_analysis.alignment import Alignment, align
from dsa_analysis.baselines import cka_distance, procrustes_distance
from dsa_analysis.choose import EmbeddingChoice, choose_embedding
from dsa_analysis.compare import compare
from dsa_analysis.comparison import Comparison
from dsa_analysis.data import DataError, omit_trials
from dsa_analysis.dmd import Operator, common_weights, fit_operator, repeat_variance, singular_spectrum
from dsa_analysis.driven import DrivenOperator, fit_driven_operator
from dsa_analysis.embedding import EmbeddingParameters, delay_embed
from dsa_analysis.explain import Explanation, explain
from dsa_analysis.grassmann import SpectralGrassmann
from dsa_analysis.inference import (
    Interval,
    auroc,
    auroc_interval,
    mean_interval,
    silhouette,
    silhouette_interval,
    spearman,
    spearman_interval,
)
from dsa_analysis.metrics import METRICS, Metric, Pairs
from dsa_analysis.nulls import Nulls, null_distances
from dsa_analysis.permutation import PermutationTest, holm, mantel, permanova
from dsa_analysis.plan import Plan, plan
from dsa_analysis.recordings import Recording, load_recording, load_recordings
from dsa_analysis.replicates import distance_intervals, noise_floor, trial_replicates
from dsa_analysis.residuals import condition_means, residuals, standardize
from dsa_analysis.similarity import Similarity
from dsa_analysis.spectra import match_modes, spectral_distance
from dsa_analysis.spread import Spread, difference_to, spread
from dsa_analysis.stability import Stability, stability
from dsa_analysis.surrogates import surrogates
from dsa_analysis.systems import LorenzRegime, lorenz, record_regimes, simulate, trajectories, transformed_copies
from dsa_analysis.windows import sliding_windows

__all__ = [
    "METRICS",
    "Alignment",
    "Comparison",
    "DataError",
    "DrivenOperator",
    "EmbeddingChoice",
    "EmbeddingParameters",
    "Explanation",
    "Interval",
    "LorenzRegime",
    "Metric",
    "Nulls",
    "Operator",
    "Pairs",
    "PermutationTest",
    "Plan",
    "Recording",
    "Similarity",
    "SpectralGrassmann",
    "Spread",
    "Stability",
    "align",
    "auroc",
    "auroc_interval",
    "choose_embedding",
    "cka_distance",
    "common_weights",
    "compare",
    "condition_means",
    "delay_embed",
    "difference_to",
    "distance_intervals",
    "explain",
    "fit_driven_operator",
    "fit_operator",
    "holm",
    "load_recording",
    "load_recordings",
    "lorenz",
    "mantel",
    "match_modes",
    "mean_interval",
    "noise_floor",
    "null_distances",
    "omit_trials",
    "permanova",
    "plan",
    "procrustes_distance",
    "record_regimes",
    "repeat_variance",
    "residuals",
    "silhouette",
    "silhouette_interval",
    "simulate",
    "singular_spectrum",
    "sliding_windows",
    "spearman",
    "spearman_interval",
    "spectral_distance",
    "spread",
    "stability",
    "standardize",
    "surrogates",
    "trajectories",
    "transformed_copies",
    "trial_replicates",
]
