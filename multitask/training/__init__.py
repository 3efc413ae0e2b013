"""Training of an ensemble of networks on rules: loss, optimiser, stop rule, checkpoints, resume.

In each step one batch of trials of one rule is drawn. All networks of the ensemble see this batch, and each network is
updated once by the gradient of its own loss (Yang et al. 2019):

    lsq             L = mean over trials, times, outputs of (mask (y - target))^2,      y = sigmoid(h W_out + b_out)
    cross_entropy   L = mean over trials, times of mask CE(softmax(h W_out + b_out), target)

The defaults are the settings of the paper: Adam with a constant learning rate of 1e-3, and each entry of the gradient
clipped to [-1, 1]. Other settings learn twenty times faster on a CPU: relu units, recurrent weights that start at
0.9 I, the gradient of each network clipped by its norm, a learning rate with warm-up and cosine decay, and decisions
that start with large coherences.

You can pass a list of groups of rules. The groups are then learned one after the other, and ``c_intsyn`` > 0 protects
what was learned before by intelligent synapses (Zenke et al. 2017).

The random numbers of a step depend only on the seed and on the number of the step. A run that was killed and resumed
therefore gives the same result, bit for bit on a CPU with the same number of threads.

The modules are `parameters`, `losses` and `penalties` (what is minimised), `optimiser`, `loop` (updates, evaluations,
stop rule), `runs` (`train`, `load_run`) and `verify` (trains a stored run again and compares).

Sources: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306, and its public code; Zenke, Poole
and Ganguli (2017), Continual learning through synaptic intelligence, ICML.
"""

from multitask.training.losses import SquaredError, task_loss
from multitask.training.optimiser import Adam, clipped, gradient_norms
from multitask.training.parameters import TrainingParameters
from multitask.training.penalties import Penalty, Synapses
from multitask.training.runs import Run, load_run, train
from multitask.training.verify import Verification, verify_run

__all__ = [
    "Adam",
    "Penalty",
    "Run",
    "SquaredError",
    "Synapses",
    "TrainingParameters",
    "Verification",
    "clipped",
    "gradient_norms",
    "load_run",
    "task_loss",
    "train",
    "verify_run",
]
