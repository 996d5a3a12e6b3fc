"""Check a network family: widths cut from one set of weights, and counted."""

from __future__ import annotations

import torch
from torch import Tensor

from stepfront.trainers.config import NetworkSettings
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.networks.families import build_backbone
from stepfront.trainers.networks.layers import parameter_segments
from stepfront.trainers.networks.supernet import Supernet


class NetworkFamilyConformance:
    """The contract of a network family.  Set `family` to the name that settings would give it.

    Override `settings` where the family can't be built with these, and the size of the images where it needs others.
    """

    family: str
    image_channels = 1
    resolution = 8

    def settings(self, classes: int | None = None) -> NetworkSettings:
        """Return small settings of at least two widths; `classes` of a class-conditional network."""
        return NetworkSettings(
            family=self.family,
            base=8,
            multipliers=(1, 2),
            groups=4,
            group_channels=2,
            widths=(0.25, 0.5, 1.0),
            classes=classes,
        )

    def supernet(self, classes: int | None = None) -> Supernet:
        """Return a supernet in which every parameter is random, also those that begin as zeros."""
        supernet = Supernet(self.settings(classes), self.image_channels, self.resolution).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weights in supernet.parameters():
                spread = 0.3 if weights.ndim == 1 else weights[0].numel() ** -0.5
                weights.copy_(spread * torch.randn(weights.shape, generator=generator) + (weights.ndim == 1))
        return supernet

    def inputs(self) -> tuple[Tensor, Tensor]:
        """Return noised images [3, C, H, W] and times [3]."""
        x = torch.randn(3, self.image_channels, self.resolution, self.resolution, generator=torch.Generator())
        return x, torch.tensor([0.0, 37.0, 999.0])

    def test_every_width_predicts_noise_of_the_images_shape(self) -> None:
        """The prediction has the shape of x and is finite, and widths and times make a difference."""
        supernet, (x, t) = self.supernet(), self.inputs()
        with torch.no_grad():
            outputs = [supernet(x, t, width) for width in supernet.widths]
            other_times = supernet(x, t.flip(0), 1.0)
        for width, output in zip(supernet.widths, outputs, strict=True):
            assert output.shape == x.shape, f"width {width} predicts {list(output.shape)} of {list(x.shape)}"
            assert output.isfinite().all(), f"width {width} predicts numbers that are not finite"
        assert not torch.equal(outputs[0], outputs[-1]), "the narrowest and the widest network predict the same"
        assert not torch.equal(outputs[-1], other_times), "the prediction does not depend on the time"

    def test_a_subnet_computes_exactly_what_the_supernet_computes(self) -> None:
        """The plain network of a width equals the supernet at this width, bit for bit."""
        supernet, (x, t) = self.supernet(), self.inputs()
        for width in supernet.widths:
            with torch.no_grad():
                assert torch.equal(supernet.subnet(width)(x, t), supernet(x, t, width)), f"width {width} differs"

    def test_the_prediction_of_an_image_is_its_own(self) -> None:
        """No image changes the prediction of another in its batch."""
        supernet, (x, t) = self.supernet(), self.inputs()
        with torch.no_grad():
            torch.testing.assert_close(supernet(x, t)[:1], supernet(x[:1], t[:1]), rtol=1e-4, atol=1e-5)

    def test_all_widths_have_the_same_layers(self) -> None:
        """Each parameter of a narrow network is a slice of the parameter of the same name in the widest one."""
        settings = self.settings()
        widest = build_backbone(settings, self.image_channels, self.resolution, 1.0)
        shapes = {name: value.shape for name, value in widest.named_parameters()}
        for width in settings.widths:
            narrow = build_backbone(settings, self.image_channels, self.resolution, width)
            own = {name: value.shape for name, value in narrow.named_parameters()}
            assert list(own) == list(shapes), f"width {width} has other parameters than the widest network"
            assert set(parameter_segments(narrow)) == set(own), f"width {width} has parameters without segments"
            for name, shape in own.items():
                fits = all(small <= large for small, large in zip(shape, shapes[name], strict=True))
                assert fits, f"{name} at width {width} is {list(shape)}, more than {list(shapes[name])}"

    def test_macs_are_counted_and_grow_with_the_width(self) -> None:
        """Costs are counted on the meta device, without any computation."""
        settings = self.settings()
        costs = [count_width(settings, self.image_channels, self.resolution, width) for width in settings.widths]
        macs = [cost.macs for cost in costs]
        assert macs[0] > 0, "no MACs are counted; the network must run on the meta device"
        assert macs == sorted(set(macs)), f"MACs do not grow with the width: {macs}"
        assert costs[0].parameters < costs[-1].parameters, "parameters do not grow with the width"

    def test_equal_seeds_give_equal_weights(self) -> None:
        """Initial weights depend on torch's generator alone."""
        weights = []
        for _ in range(2):
            with torch.random.fork_rng():
                torch.manual_seed(1)
                weights.append(build_backbone(self.settings(), self.image_channels, self.resolution, 1.0).state_dict())
        for name, value in weights[0].items():
            assert torch.equal(value, weights[1][name]), f"{name} differs between two equal seeds"

    def test_every_width_can_be_trained(self) -> None:
        """The loss of each width has a finite gradient, and that of the widest reaches every parameter."""
        supernet, (x, t) = self.supernet().train(), self.inputs()
        for width in supernet.widths:
            supernet.zero_grad()
            supernet(x, t, width).square().mean().backward()
            gradients = {name: value.grad for name, value in supernet.named_parameters()}
            given = [gradient for gradient in gradients.values() if gradient is not None]
            assert given, f"width {width} has no gradient"
            assert all(gradient.isfinite().all() for gradient in given), f"width {width}: a gradient is not finite"
        unused = [name for name, gradient in gradients.items() if gradient is None]
        assert not unused, f"the widest network does not use {unused}"

    def test_a_conditional_network_reads_its_label(self) -> None:
        """With classes the label matters, and the class after the last is the null class."""
        supernet, (x, t) = self.supernet(classes=3), self.inputs()
        labels = torch.tensor([0, 1, 3])
        with torch.no_grad():
            for width in supernet.widths:
                first, second = supernet(x, t, width, labels), supernet(x, t, width, labels.flip(0))
                assert not torch.equal(first[0], second[0]), f"width {width} ignores the label"
                assert torch.equal(supernet.subnet(width)(x, t, labels), first), f"width {width} differs with labels"
