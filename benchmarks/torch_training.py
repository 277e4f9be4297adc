"""Training steps in torch, of the networks and with the settings of `configs/`; for training.py.

Inputs and targets are ready made, in channels_last.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch_fastpose import FastPose50
from torch_litepose import LitePose


def fastpose_step(batch_size: int) -> Callable[[], float]:
    """FastPose-50: mean squared error and Adam, as in coco_fastpose_res50_256x192.py."""
    network, inputs, targets = prepared(FastPose50(), batch_size)
    optimizer = torch.optim.Adam(network.parameters())

    def run() -> float:
        optimizer.zero_grad()
        loss = functional.mse_loss(network(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def litepose_step(batch_size: int) -> Callable[[], float]:
    """LitePose: cross-entropy over positions, clipping, AdamW, averages, at a rate of 1.5e-3."""
    network, inputs, targets = prepared(LitePose(), batch_size)
    probabilities = (targets / targets.sum((2, 3), keepdim=True)).flatten(2).flatten(0, 1)
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1]},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.5e-3, weight_decay=0.02)
    averages = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)

    def run() -> float:
        optimizer.zero_grad()
        logits = network(inputs).flatten(2).flatten(0, 1)  # (crops * joints, positions)
        loss = functional.cross_entropy(logits, probabilities)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        averages.update_parameters(network)
        return loss.item()

    return run


def prepared(network: nn.Module, batch_size: int) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The network, random crops (b, 3, 256, 192) and random targets (b, 17, 64, 48)."""
    rng = np.random.default_rng(0)
    crops = rng.normal(size=(batch_size, 256, 192, 3)).astype(np.float32)
    inputs = torch.from_numpy(crops).permute(0, 3, 1, 2)  # NHWC in memory: channels_last
    targets = torch.from_numpy(rng.random((batch_size, 17, 64, 48), np.float32))
    return network.train().to(memory_format=torch.channels_last), inputs, targets
