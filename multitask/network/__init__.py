"""Ensembles of leaky recurrent networks (Yang et al. 2019).

    h_t = (1 - alpha) h_{t-1} + alpha f(x_t W_in + h_{t-1} W_rec + b + noise_t),    h_0 = 0
    y_t = sigmoid(h_t W_out + b_out)

with alpha = dt / tau. The private white noise is inside the nonlinearity and has standard deviation
sigma_rec sqrt(2 / alpha) per time step. States are row vectors, so entry (j, i) of a weight matrix is the weight from j
to i. The leading axis of every array is the ensemble of E networks; one network is an ensemble of one. The initial
weights of network i do not depend on the number of networks.

The second cell is a leaky GRU with gates r and u and a candidate c. The noise is added to the candidate:

    r, u = sigmoid(x W + h U + b),    c = f(x W_c + (r h) U_c + b_c + noise),    h' = (1 - alpha u) h + alpha u c.

Source: Yang, Joglekar, Song, Newsome and Wang (2019), Nat Neurosci 22, 297-306, and its public code. They do not state
the initial weights of the GRU; here they are Glorot uniform, with gate biases of 1.

Other cells are given by their equation in a class, `Cell`, and differentiated by autograd (`multitask.network.cells`).
"""

import torch

from multitask.network.cell_network import CellNetwork
from multitask.network.cells import CELLS, Cell
from multitask.network.gru import LeakyGRU
from multitask.network.parameters import WEIGHT_GROUPS, NetworkParameters
from multitask.network.rnn import LeakyRNN

__all__ = ["CELLS", "WEIGHT_GROUPS", "Cell", "CellNetwork", "LeakyGRU", "LeakyRNN", "NetworkParameters", "make_network"]


def make_network(
    parameters: NetworkParameters, n_networks: int = 1, seed: int = 0, device: torch.device | str | None = None
) -> LeakyRNN:
    """Create an ensemble of the class named by ``parameters.rnn_type``.

    Parameters
    ----------
    parameters : NetworkParameters
    n_networks : int >= 1
    seed : int >= 0
        Seed of the initial weights.
    device : torch.device or str, optional
        CPU by default.

    Returns
    -------
    LeakyRNN, LeakyGRU or CellNetwork

    Raises
    ------
    MultitaskError
        If an argument is out of range, or if the device does not exist.
    """
    leaky = {"LeakyRNN": LeakyRNN, "LeakyGRU": LeakyGRU}
    return leaky.get(parameters.rnn_type, CellNetwork)(parameters, n_networks, seed, device)
