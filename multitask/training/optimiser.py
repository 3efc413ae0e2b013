"""The optimiser and the limits on the gradient."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from multitask.training.parameters import TrainingParameters


class Adam:
    """The Adam optimiser (Kingma and Ba 2015) with beta 0.9 and 0.999.

    Updates are elementwise, so networks on the leading axis are independent. This class replaces `torch.optim.Adam`
    because the first optimiser of `torch.optim` in a process imports a compiler, which takes four seconds.

    Parameters
    ----------
    weights : mapping name -> Tensor
        Weights to train. `update` changes them in place.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights
        self.mean = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
        self.square = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
        self.n_updates = 0

    def update(self, gradients: Sequence[Tensor], rate: float) -> None:
        """Update the weights in place, w -= rate m / (sqrt(v) + 1e-8).

        m and v are the debiased running means of the gradient and of its square.

        Parameters
        ----------
        gradients : sequence of Tensor
            Gradient of each weight, in the order of ``weights``.
        rate : float > 0
            Learning rate.
        """
        self.n_updates += 1
        debias_mean, debias_square = (1 - beta**self.n_updates for beta in (0.9, 0.999))
        for (name, weight), gradient in zip(self.weights.items(), gradients, strict=True):
            mean = self.mean[name].lerp_(gradient, 0.1)
            square = self.square[name].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            weight.addcdiv_(mean, (square / debias_square).sqrt_().add_(1e-8), value=-rate / debias_mean)


def gradient_norms(gradients: Sequence[Tensor]) -> Tensor:
    """Norm of the gradient of each network over all its weights.

    Parameters
    ----------
    gradients : sequence of Tensor, (E, rows, columns)

    Returns
    -------
    Tensor, (E,)
    """
    return torch.stack([gradient.square().sum((1, 2)) for gradient in gradients]).sum(0).sqrt()


def clipped(gradients: Sequence[Tensor], norms: Tensor, training: TrainingParameters) -> Sequence[Tensor]:
    """Gradients after clipping.

    Parameters
    ----------
    gradients : sequence of Tensor, (E, rows, columns)
    norms : Tensor, (E,)
        Norm of the gradient of each network, from `gradient_norms`.
    training : TrainingParameters
        ``clip`` and ``clip_at`` are used.

    Returns
    -------
    sequence of Tensor
        New tensors; the gradients themselves if ``clip`` is "none".
    """
    if training.clip == "value":
        return [gradient.clamp(-training.clip_at, training.clip_at) for gradient in gradients]
    if training.clip == "norm":
        shrink = (training.clip_at / norms).clamp(max=1)[:, None, None]
        return [gradient * shrink for gradient in gradients]
    return gradients
