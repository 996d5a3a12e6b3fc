"""Sample images of the plan in this folder; needs only torch, numpy and safetensors (for .onnx files, onnxruntime).

    python sample.py --images 64 --seed 0 --out images.npz     # all images as one array, uint8 [N, H, W, C]
    python sample.py --images 64 --seed 0 --out images.png     # one picture: the image, or a grid of several

plan.json holds, for each step, the width to run (and a depth, where it is not the full one), its time, and the solver's
coefficients.  Step i reads the states x_j and the predicted clean images x0_j of steps j <= i, as pairs [j,
coefficient], and new noise z.  Where groups of times have weights of their own, `group` names that of the step:

    x_next = sum states_j x_j + sum clean_j x0_j + noise z,      x0 = (x - sigma eps) / alpha

Where a network predicts something other than the noise eps, `conversion` holds four numbers per step:

    eps = of_x x + of_output network(scale x, told)

`keep` names the steps of which later steps still read the state or the clean image.

Where the networks make latents, `decoder` names torch.export's program that makes images of them, a `batch` at a time.

Where the networks have classes, `condition` holds how often each label is drawn, and the scale of guidance:

    eps = eps_null + scale (eps_label - eps_null)

A step with `guided` false has scale 1: one call, with the label.  One with `guidance` has that scale.

A step with `reuse` runs the outermost level of the network alone, on the deep features of the last step without.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

Network = Callable[..., Tensor]
"""x [B, C, H, W], t [B] and, with classes, label [B] -> predicted noise [B, C, H, W]."""

COLUMNS = 8
"""Images per row of a grid."""


class UNet:
    """The network of one width: x [B, C, H, W], t [B] and, with classes, label [B] give the predicted noise.

    Its blocks follow from the names of the weights.
    """

    def __init__(self, weights: dict[str, Tensor], groups: dict[str, int], shared: dict[str, Any]) -> None:
        """Take the `groups` per norm, and what all widths share: frequencies, norm_eps, head_channels, pad_end."""
        self.weights, self.groups, self.shared = weights, groups, shared
        self.frequencies = torch.tensor(shared["frequencies"], device=weights["head.weight"].device)

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.with_features(x, t, label)[0]

    def with_features(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the predicted noise, and the deep features: what the outermost level takes from below."""
        h, skips, time = self.descend(x, t, label, self.blocks("down"))
        for block in self.blocks("middle"):
            h = self.block(block, h, time)
        below = len(self.blocks("up")) - len(self.outermost("up"))
        deep = self.rise(self.blocks("up")[:below], h, skips, time)
        return self.tail(self.rise(self.outermost("up"), deep, skips, time)), deep

    def reusing(self, deep: Tensor, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the predicted noise of the outermost level on the deep features of another call."""
        _, skips, time = self.descend(x, t, label, self.outermost("down"))
        return self.tail(self.rise(self.outermost("up"), deep, skips, time))

    def descend(
        self, x: Tensor, t: Tensor, label: Tensor | None, blocks: list[str]
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the last output of the head and these blocks, all of them, and what the blocks know of the time."""
        angles = t[:, None] * self.frequencies[None]
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, : self.shared["time_channels"]]
        time = self.linear("time.2", F.silu(self.linear("time.0", waves.to(x.dtype))))
        time = F.silu(time if label is None else time + self.weights["label.weight"][label])
        skips = [h := self.conv("head", x)]
        for block in blocks:
            skips.append(h := self.block(block, h, time))
        return h, skips, time

    def rise(self, blocks: list[str], h: Tensor, skips: list[Tensor], time: Tensor) -> Tensor:
        for block in blocks:
            joins = f"{block}.conv1.weight" in self.weights
            h = self.block(block, torch.cat([h, skips.pop()], dim=1) if joins else h, time)
        return h

    def tail(self, h: Tensor) -> Tensor:
        return self.conv("tail.2", F.silu(self.norm("tail.0", h)))

    def outermost(self, part: str) -> list[str]:
        """Return the blocks of the outermost level: those before the first halving, or after the last doubling."""
        blocks = self.blocks(part)
        borders = [number for number, block in enumerate(blocks) if f"{block}.conv.weight" in self.weights]
        if part == "down":
            return blocks[: borders[0]] if borders else blocks
        return blocks[borders[-1] + 1 :] if borders else blocks

    def blocks(self, part: str) -> list[str]:
        numbers = {int(name.split(".")[1]) for name in self.weights if name.startswith(f"{part}.")}
        return [f"{part}.{number}" for number in sorted(numbers)]

    def block(self, name: str, x: Tensor, time: Tensor) -> Tensor:
        if f"{name}.conv.weight" in self.weights:  # halves the resolution on the way down, doubles it on the way up
            if name.startswith("up"):
                return self.conv(f"{name}.conv", F.interpolate(x, scale_factor=2, mode="nearest"))
            if self.shared["pad_end"]:  # one zero at the right and the bottom, none at the left and the top
                return self.conv(f"{name}.conv", F.pad(x, (0, 1, 0, 1)), stride=2, padding=0)
            return self.conv(f"{name}.conv", x, stride=2)
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)))
        h = h + self.linear(f"{name}.time", time)[:, :, None, None]
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)))
        h = h + (self.conv(f"{name}.shortcut", x) if f"{name}.shortcut.weight" in self.weights else x)
        return self.attention(f"{name}.attention", h) if f"{name}.attention.qkv.weight" in self.weights else h

    def attention(self, name: str, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        of_head = self.shared["head_channels"] or channels
        qkv = self.conv(f"{name}.qkv", self.norm(f"{name}.norm", x))
        q, k, v = qkv.reshape(batch, 3, channels // of_head, of_head, height * width).transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        return x + self.conv(f"{name}.out", mixed.reshape(batch, channels, height, width))

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        around = weight.shape[2] // 2 if padding is None else padding
        return F.conv2d(x, weight, self.weights[f"{name}.bias"], stride=stride, padding=around)

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.group_norm(x, self.groups[name], weight, bias, self.shared["norm_eps"])


class Calls:
    """The calls of a plan's steps; those of steps with `reuse` take the deep features of the last step without."""

    def __init__(self) -> None:
        self.deep: list[Tensor] = []

    def of_step(self, network: Any, step: dict[str, Any]) -> Network:
        """Return what a step calls, once or twice: under guidance without a label first."""
        if step.get("reuse"):
            # An unguided step has only the call with the label, which is the last one of a guided step.
            deep = list(self.deep if step.get("guided", True) else self.deep[-1:])
            return lambda *given: network.reusing(deep.pop(0), *given)
        self.deep = []

        def keeping(*given: Tensor) -> Tensor:
            eps, deep = network.with_features(*given)
            self.deep.append(deep)
            return eps

        return keeping if step.get("hands_out") else network


class Point:
    """A point of a front: its plan and the networks that the plan runs.

    `device` is auto (a GPU where there is one), cpu, cuda, cuda:1 and so on.
    Raises ValueError when the weights belong to another plan, and for a device that this machine does not have.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        self.plan: dict[str, Any] = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        self.device = find_device(device)
        self.networks: dict[tuple[float, int | None, int | None], Network] = {}
        for network in self.plan["networks"]:
            self.networks[_key(network)] = self._load(folder, network)
        self.decoder = self._load(folder, self.plan["decoder"]) if "decoder" in self.plan else None

    def _load(self, folder: Path, entry: dict[str, Any]) -> Network:
        path = folder / entry["file"]
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            raise ValueError(f"{path} does not belong to this plan: its digest is not the one in plan.json")
        return load_network(path, entry, self.plan["unet"], self.device)

    def sample(self, seeds: Sequence[int], numbers: Sequence[int], labels: Sequence[int] | None = None) -> np.ndarray:
        """Return image `numbers[i]` of noise seed `seeds[i]` for each i, as uint8 [N, H, W, C].

        A seed and a number give the same image, whatever else is requested.  `labels[i]` is its class, where there are
        classes; None draws them.  Raises ValueError for a label that is not a class, and for a seed or a number that is
        not an integer from 0 on.
        """
        check_integers("seed", seeds)
        check_integers("image", numbers)
        images, batch = list(zip(seeds, numbers, strict=True)), self.plan["batch"]
        drawn = self._labels(images, labels)
        parts = []
        for first in range(0, len(images), batch):
            part = slice(first, first + batch)
            parts.append(self._batch(images[part], None if drawn is None else drawn[part]))
        return np.concatenate(parts)

    @torch.inference_mode()
    def _batch(self, images: list[tuple[int, int]], labels: Tensor | None) -> np.ndarray:
        x, states, clean, calls = self._noise(images, 0), {}, {}, Calls()
        for position, step in enumerate(self.plan["steps"]):
            x0 = (x - step["sigma"] * self._noise_in(x, step, labels, calls)) / step["alpha"]
            states[position], clean[position] = x, x0.clamp(-1, 1) if self.plan["clip"] else x0
            x = sum([c * states[j] for j, c in step["states"]] + [c * clean[j] for j, c in step["clean"]])
            if step["noise"]:
                x += step["noise"] * self._noise(images, step["number"] + 1)
            states = {j: states[j] for j in step["keep"]["states"]}
            clean = {j: clean[j] for j in step["keep"]["clean"]}
        if self.decoder is not None:
            x = torch.cat([self.decoder(part) for part in torch.split(x, self.plan["decoder"]["batch"])])
        return np.moveaxis(((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy(), 1, 3)

    def _noise_in(self, x: Tensor, step: dict[str, Any], labels: Tensor | None, calls: Calls) -> Tensor:
        network = calls.of_step(self.networks[_key(step)], step)
        conversion, scale = step.get("conversion"), self._scale(step)
        if conversion is None:
            return self._predict(network, x, torch.full((len(x),), step["time"], device=self.device), labels, scale)
        told = torch.full((len(x),), conversion["told"], device=self.device)
        output = self._predict(network, conversion["scale"] * x, told, labels, scale)
        return conversion["of_x"] * x + conversion["of_output"] * output

    def _scale(self, step: dict[str, Any]) -> float:
        """Return the scale of guidance of a step; 1 without classes."""
        if "condition" not in self.plan or not step.get("guided", True):
            return 1.0
        return float(step.get("guidance", self.plan["condition"]["guidance"]))

    def _predict(self, network: Network, x: Tensor, t: Tensor, labels: Tensor | None, scale: float) -> Tensor:
        if labels is None:
            return network(x, t)
        null = len(self.plan["condition"]["counts"])
        if scale == 1.0:
            return network(x, t, labels)
        unconditional = network(x, t, torch.full_like(labels, null))
        if scale == 0.0:
            return unconditional
        return unconditional + scale * (network(x, t, labels) - unconditional)

    def _labels(self, images: list[tuple[int, int]], given: Sequence[int] | None) -> Tensor | None:
        """Return the labels [N]: those given, or a function of seed and number; None without classes."""
        if "condition" not in self.plan:
            if given is not None:
                raise ValueError("these networks have no classes; leave the label out")
            return None
        counts = self.plan["condition"]["counts"]
        labels = [self._drawn(counts, *each) for each in images] if given is None else list(given)
        check_integers("label", labels)
        for label in labels:
            if not 0 <= label < len(counts):
                raise ValueError(f"no class {label}; possible: 0 to {len(counts) - 1}")
        return torch.tensor(labels, device=self.device)

    def _drawn(self, counts: list[int], seed: int, number: int) -> int:
        generator = np.random.Generator(np.random.Philox(key=[seed, 0], counter=[number // 4, 0, 1, 0]))
        drawn = generator.random(number % 4 + 1)[-1]
        return int(np.searchsorted(np.cumsum(counts) / sum(counts), drawn, side="right"))

    def _noise(self, images: list[tuple[int, int]], block: int) -> Tensor:
        """Return noise as a function of seed, image and step, from a counter-based generator (Philox)."""
        shape = self.plan["image_shape"]
        drawn = np.empty((len(images), *shape), dtype=np.float32)
        for row, (seed, number) in enumerate(images):
            generator = np.random.Generator(np.random.Philox(key=[seed, number], counter=[0, 0, 0, block]))
            drawn[row] = generator.standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(drawn).to(self.device)


def _key(entry: dict[str, Any]) -> tuple[float, int | None, int | None]:
    """Return which network an entry or a step of the plan names: its width, group of times and depth."""
    return entry["width"], entry.get("group"), entry.get("depth")


def load_network(path: Path, network: dict[str, Any], shared: dict[str, Any], device: torch.device) -> Network:
    """Load a network: weights (.safetensors), torch.export's program (.pt2) or ONNX (.onnx, needs onnxruntime)."""
    if path.suffix == ".pt2":
        program = torch.export.load(path)
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, str(device))
        return program.module()
    if path.suffix == ".onnx":
        return OnnxNetwork(path, device)
    return UNet(load_file(path, device=str(device)), network["groups"], shared)


class OnnxNetwork:
    """A network that onnxruntime runs.  Raises ValueError where its build has no support for the device."""

    def __init__(self, path: Path, device: torch.device) -> None:
        import onnxruntime

        provider = "CPUExecutionProvider" if device.type == "cpu" else f"{device.type.upper()}ExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise ValueError(f"this onnxruntime can't run on {device.type}; give --device cpu")
        options = {} if device.type == "cpu" else {"device_id": str(device.index or 0)}
        self.session = onnxruntime.InferenceSession(str(path), providers=[(provider, options)])
        self.names = [entry.name for entry in self.session.get_inputs()]

    def __call__(self, *inputs: Tensor) -> Tensor:
        given = {name: value.cpu().numpy() for name, value in zip(self.names, inputs, strict=True)}
        return torch.from_numpy(self.session.run(None, given)[0]).to(inputs[0].device)


def find_device(name: str) -> torch.device:
    """Return the device of a name; auto is a GPU where there is one.  Raises ValueError for one that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except Exception:  # each kind of device raises errors of its own, some of many lines
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        raise ValueError(f"no device {name!r} on this machine; possible: {', '.join(['auto', 'cpu', *gpus])}") from None
    return device


def check_integers(name: str, values: Sequence[int]) -> None:
    """Raise ValueError where a value is not an integer from 0 on; the noise takes 64 bits."""
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**64:
            raise ValueError(f"{name} {value!r}; possible: integers from 0 to 2**64 - 1")


def grid(images: np.ndarray) -> np.ndarray:
    """Return the only image, or several [N, H, W, C] as one picture, COLUMNS per row and one pixel apart."""
    count, height, width, channels = images.shape
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 127, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        sheet[top : top + height, left : left + width] = image
    return sheet


def png(image: np.ndarray) -> bytes:
    """Return a picture, uint8 [H, W, C], as a PNG file; written out since no library for it is needed here."""
    height, width, channels = image.shape
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]  # grey, grey with alpha, RGB, RGB with alpha

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">2I5B", width, height, 8, color, 0, 0, 0)
    rows = b"".join(b"\0" + np.ascontiguousarray(row).tobytes() for row in image)  # 0: the row is not filtered
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def main() -> None:
    """Sample images and write them into one file; wrong input ends in one line."""
    parser = argparse.ArgumentParser(description="Sample images of the plan in this folder.")
    parser.add_argument("--images", type=int, default=64, help="number of images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="noise seed (default: %(default)s)")
    parser.add_argument("--label", type=int, help="class of all images (default: drawn as in the training data)")
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto, a GPU where there is one)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("images.npz"),
        metavar="FILE",
        help=f"a .npz of all images, or a .png: the image, or a grid of {COLUMNS} per row (default: %(default)s)",
    )
    given = parser.parse_args()
    try:
        if given.images < 1:
            raise ValueError(f"--images {given.images}; possible: integers from 1 on")
        if given.out.suffix not in (".npz", ".png"):
            raise ValueError(f"--out {given.out}; possible: a name that ends in .npz or .png")
        point = Point(Path(__file__).resolve().parent, given.device)
        labels = None if given.label is None else [given.label] * given.images
        images = point.sample([given.seed] * given.images, range(given.images), labels)
        if given.out.suffix == ".png":
            given.out.write_bytes(png(grid(images)))
        else:
            np.savez_compressed(given.out, images=images)
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")
    print(f"{given.images} images of the plan {point.plan['plan']} in {given.out}")


if __name__ == "__main__":
    main()
