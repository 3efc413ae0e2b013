"""Losses of a batch of trials."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from multitask.trials import TrialBatch


def task_loss(logits: Tensor, batch: TrialBatch, loss_type: str) -> Tensor:
    """Loss of each network on a batch of trials.

    Parameters
    ----------
    logits : Tensor, (E, n_trials, n_times, n_output)
        Outputs before sigmoid or softmax.
    batch : TrialBatch
        Targets and cost mask, in the form of the same loss.
    loss_type : "lsq", "cross_entropy" or "mean_square"
        "lsq" is the mean of (mask (sigmoid(logits) - target))^2 over trials, times and outputs. "cross_entropy" is the
        mean of mask CE(softmax(logits), target) over trials and times. "mean_square" is the mean of
        (mask (logits - target))^2.

    Returns
    -------
    Tensor, (E,)
    """
    if loss_type == "lsq":
        return SquaredError.apply(logits, batch.targets, batch.cost_mask)
    if loss_type == "mean_square":
        return ((logits - batch.targets) * batch.cost_mask).square().mean((1, 2, 3))
    surprise = -(torch.log_softmax(logits, -1) * batch.targets).sum(-1)
    return (batch.cost_mask * surprise).mean((1, 2))


class SquaredError(torch.autograd.Function):
    """Least-squares loss with its gradient written by hand.

        L = mean (mask (y - target))^2 with y = sigmoid(logits),    dL/dlogits = 2 / n mask^2 (y - target) y (1 - y)

    Autograd takes twice the time. Its gradient also has another memory layout than the recurrence, which then has to
    copy it.
    """

    @staticmethod
    def forward(ctx, logits, targets, mask):
        y = torch.sigmoid(logits)
        residual = (y - targets).mul_(mask)
        ctx.save_for_backward(y, residual, mask)
        return residual.square().mean((1, 2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        y, residual, mask = ctx.saved_tensors
        scale = 2 / residual[0].numel() * gradient[:, None, None, None]
        return torch.ops.aten.sigmoid_backward((residual * mask).mul_(scale), y), None, None
