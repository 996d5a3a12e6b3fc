"""FID's Inception-v3: its published architecture, numbers of pytorch-fid's own code, the real files."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stepfront.errors import InputError
from stepfront.trainers.config import FeatureSettings
from stepfront.trainers.data import load_data
from stepfront.trainers.feature_networks.feature_files import open_feature_file
from stepfront.trainers.feature_networks.inception import Inception, load_inception
from stepfront.trainers.metrics.features import FeatureNetwork, PackedFeatures

CPU = torch.device("cpu")
STATE_DICT, TORCHSCRIPT = "STEPFRONT_INCEPTION_STATE_DICT", "STEPFRONT_INCEPTION_TORCHSCRIPT"


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Random weights under which the features vary, drawn in the order of their names."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Inception().state_dict().items()}
    rng = np.random.RandomState(0)
    drawn = {}
    for name in sorted(name for name in shapes if not name.endswith("num_batches_tracked")):
        shape = tuple(shapes[name])
        if len(shape) == 4:
            values = rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            values = 0.5 + rng.rand(*shape)
        else:
            values = 0.1 * rng.standard_normal(shape)
        drawn[name] = torch.from_numpy(values.astype(np.float32))
    return drawn


@pytest.fixture(scope="module")
def network(weights: dict[str, Tensor]) -> Inception:
    return load_inception(weights)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """[3, 3, 32, 32] whole numbers of 0..255."""
    return torch.from_numpy(np.random.RandomState(1).randint(0, 256, (3, 3, 32, 32)).astype(np.float32))


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


# --- the architecture -------------------------------------------------------------------------------------------------


def test_it_has_the_published_parameters_and_macs() -> None:
    with torch.device("meta"):
        network = Inception().eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 299, 299))
    body = sum(parameters.numel() for parameters in network.parameters())
    # Keras publishes 21,802,784 without the read-out: no scales in its batch norms, but their means and variances.
    channels = sum(m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert body - channels + 2 * channels == 21_802_784
    assert body + 2048 * 1008 + 1008 == 23_850_960
    # torchvision publishes 5.713 GMACs with its read-out of 1,000 classes.
    assert round((counter.get_total_flops() / 2 + 2048 * 1000) / 1e9, 3) == 5.713


def test_names_and_shapes_are_those_of_the_published_weights() -> None:
    # The digest of the same lines made from pytorch-fid 0.3.0 and torchvision 0.29.2, without the read-out.
    with torch.device("meta"):
        state = Inception().state_dict()
    lines = [f"{k} {list(v.shape)}" for k, v in sorted(state.items()) if not k.endswith("num_batches_tracked")]
    assert len(lines) == 5 * 94
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest == "b628bc492e0cd5a5ea154bb78c4637db2a10ffa3c528519b65fb723b9bb5a5ac"


@pytest.mark.parametrize(
    ("module", "channels", "side"),
    [
        ("Conv2d_1a_3x3", 32, 149),
        ("Conv2d_2a_3x3", 32, 147),
        ("Conv2d_2b_3x3", 64, 147),
        ("Conv2d_4a_3x3", 192, 71),
        ("Mixed_5b", 256, 35),
        ("Mixed_5d", 288, 35),
        ("Mixed_6a", 768, 17),
        ("Mixed_6e", 768, 17),
        ("Mixed_7a", 1280, 8),
        ("Mixed_7c", 2048, 8),
    ],
)
def test_resolutions_are_those_of_table_1_of_the_paper(module: str, channels: int, side: int) -> None:
    shapes = []
    with torch.device("meta"):
        network = Inception().eval()
        network.get_submodule(module).register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 2048)
    assert shapes == [(2, channels, side, side)]


def test_features_are_those_of_pytorch_fid(network: Inception, images: Tensor) -> None:
    # Computed once by pytorch-fid 0.3.0 with torchvision 0.29.2 from the same weights and images.
    features = network(images / 127.5 - 1)
    expected = [
        [13.553621292, 0.520639658, 19.081756592, 0.172125489, 1.344175577],
        [13.961633682, 0.471678674, 19.507926941, 0.114571005, 1.383126736],
    ]
    np.testing.assert_allclose(features[:2, [0, 500, 1000, 1500, 2047]], expected, rtol=2e-5)
    np.testing.assert_allclose(features.double().mean(1), [4.866834017, 4.954943875, 4.976553397], rtol=1e-5)


def test_averages_leave_the_padding_out_and_the_last_block_takes_the_maximum(network: Inception) -> None:
    x = torch.rand(1, 192, 5, 5)
    pooled: list[Tensor] = []
    hook = network.Mixed_5b.branch_pool.register_forward_hook(lambda _, given, __: pooled.append(given[0]))
    network.Mixed_5b(x)
    hook.remove()
    torch.testing.assert_close(pooled[0][0, :, 0, 0], x[0, :, :2, :2].mean(dim=(1, 2)))
    torch.testing.assert_close(pooled[0][0, :, 2, 2], x[0, :, 1:4, 1:4].mean(dim=(1, 2)))
    y = torch.rand(1, 2048, 5, 5) - 2  # all below zero: zeros around would win
    hook = network.Mixed_7c.branch_pool.register_forward_hook(lambda _, given, __: pooled.append(given[0]))
    network.Mixed_7c(y)
    hook.remove()
    assert torch.equal(pooled[1][0, :, 0, 0], y[0, :, :2, :2].amax(dim=(1, 2)))


def test_grey_images_are_colour_images_of_equal_channels(network: Inception, images: Tensor) -> None:
    grey = images[:, :1] / 127.5 - 1
    torch.testing.assert_close(network(grey), network(grey.repeat(1, 3, 1, 1)))


# --- the state dict ---------------------------------------------------------------------------------------------------


def test_a_state_dict_with_its_read_out_and_counters_gives_the_same_features(
    weights: dict[str, Tensor], network: Inception, images: Tensor
) -> None:
    extra = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    counters = {k.replace("bn.bias", "bn.num_batches_tracked"): torch.tensor(7) for k in weights if "bn.bias" in k}
    legacy = io.BytesIO()
    torch.save(weights | extra, legacy, _use_new_zipfile_serialization=False)  # as the published file is saved
    with torch.no_grad():
        expected = network(images / 127.5 - 1).numpy()
    for content in (saved(weights), saved(weights | extra | counters), legacy.getvalue(), saved(network.state_dict())):
        features = packed(content, ".pth").unpack(CPU)
        np.testing.assert_array_equal(features(images / 127.5 - 1), expected)


def test_many_images_are_taken_in_parts(weights: dict[str, Tensor]) -> None:
    seen: list[int] = []
    features = open_feature_file("inception", saved(weights), ".pth", torch.device("cpu"))
    original = F.interpolate

    def watched(x: Tensor, **given: object) -> Tensor:
        seen.append(len(x))
        return original(x, size=(75, 75))  # small, for speed alone

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "interpolate", watched)
        with torch.inference_mode():
            assert features(torch.zeros(101, 1, 4, 4)).shape == (101, 2048)
    assert seen == [50, 50, 1]


def test_other_weights_are_refused_by_name(weights: dict[str, Tensor], trap: tuple[object, Path]) -> None:
    bomb, witness = trap
    without = {k: v for k, v in weights.items() if k != "Mixed_7c.branch1x1.bn.bias"}
    first = "Conv2d_1a_3x3.conv.weight"
    for content, message in (
        (saved(without), "is not the weights of FID's Inception-v3: it lacks Mixed_7c.branch1x1.bn.bias"),
        (saved(weights | {"AuxLogits.fc.bias": torch.zeros(1)}), "it also holds AuxLogits.fc.bias"),
        (saved(weights | {first: torch.zeros(32, 1, 3, 3)}), f"it has another shape of {first}"),
        (saved({}), "it lacks Conv2d_1a_3x3.bn.bias and 469 more"),
        (saved([1]), "is not a state dict (.pth): it is not a mapping of names to tensors"),
        (saved({"weights": bomb}), "is not a state dict (.pth): "),
        (pickle.dumps(bomb), "is not a state dict (.pth): "),
        (saved(weights)[:1000], "is not a state dict (.pth): "),
        (b"", "is not a state dict (.pth): "),
    ):
        with pytest.raises(InputError) as caught:
            packed(content, ".pth").unpack(CPU)
        assert message in str(caught.value)
        assert "'inception'" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not witness.exists()


def packed(content: bytes, suffix: str) -> PackedFeatures:
    return PackedFeatures(FeatureSettings(name="inception", path=f"inception{suffix}"), content)


# --- the reference's TorchScript --------------------------------------------------------------------------------------


class Reference(nn.Module):
    """A small network with the calling convention of the reference's file."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)))

    def forward(self, img: Tensor, return_features: bool = False, use_fp16: bool = False) -> Tensor:
        assert img.dtype == torch.uint8
        assert img.shape[1] == 3
        features = img.float().mean(dim=(2, 3)) @ self.weights
        return features if return_features else torch.softmax(features, 1)


def test_torchscript_of_the_reference_gets_8_bit_colour_and_is_asked_for_features(images: Tensor) -> None:
    network, file = Reference(), io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    features = packed(file.getvalue(), ".pt").unpack(CPU)
    with torch.no_grad():
        expected = images.mean(dim=(2, 3)) @ network.weights
        grey = images[:, :1].mean(dim=(2, 3)).expand(-1, 3) @ network.weights
    np.testing.assert_allclose(features(images / 127.5 - 1), expected, rtol=1e-5)
    np.testing.assert_allclose(features(images[:, :1] / 127.5 - 1), grey, rtol=1e-5)


# --- the real files ---------------------------------------------------------------------------------------------------


def given(variable: str) -> FeatureNetwork:
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} names no file")
    return packed(Path(path).read_bytes(), Path(path).suffix).unpack(CPU)


def digits_at(side: int) -> Tensor:
    from stepfront.trainers.config import DataSettings

    return torch.from_numpy(load_data(DataSettings(size=side, channels=3, limit=20)).images) / 127.5 - 1


@pytest.mark.parametrize("variable", [STATE_DICT, TORCHSCRIPT])
def test_the_real_file_gives_2048_averages_after_relu(variable: str) -> None:
    rows = given(variable)(digits_at(32))
    assert rows.shape[1] == 2048
    assert np.isfinite(rows).all()
    assert (rows >= 0).all()
    assert (rows.std(axis=0) > 0).mean() > 0.9


def test_the_real_files_are_the_same_network() -> None:
    # At 299 pixels neither resizes, which is where the two differ otherwise.
    one, other = given(STATE_DICT)(digits_at(299)), given(TORCHSCRIPT)(digits_at(299))
    assert np.linalg.norm(one - other) < 0.01 * np.linalg.norm(other)


def test_the_real_state_dict_is_the_published_one() -> None:
    given(STATE_DICT)
    digest = hashlib.sha256(Path(os.environ[STATE_DICT]).read_bytes()).hexdigest()
    assert digest.startswith("6726825d")  # the part of the digest that the published name ends in
