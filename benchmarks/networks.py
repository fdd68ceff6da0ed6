"""Times the convolutional networks: ``python benchmarks/networks.py [--batch 4] [--device cuda]``.

Prints one JSON object a line: milliseconds, best of ``--repeats``, of the 64 px configuration that
the parity tests use (planes 64 px, channels min(4096 / px, 128), super-resolution 32 to 64 px). On
a CPU they are processor time of one thread, on a GPU wall time. Without ``--modulation`` both forms
are timed. ``r1`` is a forward pass, its gradient on the images and the gradient of that. Each run
begins with ``reference``, one 3x3 convolution of 64 channels at 64 px forward and backward, to
compare with on another or a busier machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from nerfstudio_gan3d.losses.adversarial import r1_penalty
from nerfstudio_gan3d.networks.discriminator import DualDiscriminator
from nerfstudio_gan3d.networks.ops import ModulationForm
from nerfstudio_gan3d.networks.stylegan2 import Backbone
from nerfstudio_gan3d.networks.superresolution import SuperResolution

Timings = Iterator[tuple[str, Callable[[], object]]]


def milliseconds(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Best time of a call after one to warm up."""
    on_gpu = device.type == "cuda"
    times = []
    for _ in range(repeats + 1):
        begin = time.perf_counter() if on_gpu else time.process_time()
        run()
        if on_gpu:
            torch.cuda.synchronize()
        times.append((time.perf_counter() if on_gpu else time.process_time()) - begin)
    return round(min(times[1:]) * 1e3, 1)


def forward_only(run: Callable[[], Tensor]) -> Callable[[], object]:
    """The call without a graph."""

    def wrapped() -> Tensor:
        with torch.no_grad():
            return run()

    return wrapped


def both_ways(run: Callable[[], Tensor]) -> Callable[[], object]:
    """The call and the backward pass of a loss of its result."""
    return lambda: run().square().mean().backward()


def reference(batch: int) -> Timings:
    x = torch.randn(batch, 64, 64, 64).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    weight = torch.randn(64, 64, 3, 3, requires_grad=True)
    yield "forward_backward", both_ways(lambda: F.conv2d(x, weight, padding=1))


def generator(batch: int, modulation: ModulationForm) -> Timings:
    backbone = Backbone(512, 25, 512, 64, 96, 4096, 128, modulation=modulation)
    upsampler = SuperResolution(32, 64, modulation=modulation)
    z, c, ws = torch.randn(batch, 512), torch.randn(batch, 25), torch.randn(batch, 10, 512)
    features = torch.randn(batch, 32, 32, 32, requires_grad=True)

    def upsample() -> Tensor:
        return upsampler(features, features[:, :3], ws).image

    calls: dict[str, Callable[[], Tensor]] = {
        "mapping": lambda: backbone.mapping(z, c),
        "synthesis": lambda: backbone.synthesis(ws),
        "superresolution": upsample,
    }
    for name, call in calls.items():
        yield f"{name}_forward", forward_only(call)
        yield f"{name}_forward_backward", both_ways(call)


def discriminator(batch: int) -> Timings:
    network = DualDiscriminator(64, channel_base=4096, channel_max=128)
    image, raw = torch.randn(batch, 3, 64, 64), torch.randn(batch, 3, 32, 32)
    c = torch.randn(batch, 25)

    def call() -> Tensor:
        return network(image, raw, c)

    def penalty() -> None:
        inputs = (image.detach().requires_grad_(), raw.detach().requires_grad_())
        r1_penalty(network(*inputs, c), inputs).mean().backward()

    yield "discriminator_forward", forward_only(call)
    yield "discriminator_forward_backward", both_ways(call)
    yield "discriminator_r1", penalty


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--modulation", choices=get_args(ModulationForm))
    options = parser.parse_args()
    device = torch.device(options.device)
    forms: tuple[ModulationForm, ...] = get_args(ModulationForm)
    if options.modulation:
        forms = (options.modulation,)

    def report(part: str, timings: Timings) -> None:
        found = {name: milliseconds(run, options.repeats, device) for name, run in timings}
        print(json.dumps({"part": part, "batch": options.batch, **found}), flush=True)

    with torch.device(device):
        report("reference", reference(options.batch))
        for form in forms:
            report(f"generator, {form}", generator(options.batch, form))
        report("discriminator", discriminator(options.batch))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
