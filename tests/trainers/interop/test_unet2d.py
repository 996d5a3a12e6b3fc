"""UNet2DModel folders: diffusers' own network against the imported one, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stepfront.errors import InputError
from stepfront.trainers.config import DiffusionSettings
from stepfront.trainers.diffusion.schedule import noise_schedule
from stepfront.trainers.interop.ddsm import import_ddsm
from stepfront.trainers.interop.unet2d import CONFIG_FILE, ORIGIN_FILE, WEIGHTS_FILE, export_unet2d, import_unet2d
from stepfront.trainers.interop.unet2d_config import NullClass
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.networks.supernet_files import load_supernet, save_supernet
from tests.trainers.interop.ddsm_network import ddsm_forward, random_weights

diffusers = pytest.importorskip("diffusers")

D, A, U, V = "DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"

CONFIGS: dict[str, dict[str, Any]] = {
    "as Ho et al.'s, small": {
        "sample_size": 16,
        "block_out_channels": (32, 64, 64),
        "down_block_types": (D, A, D),
        "up_block_types": (U, V, U),
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
    },
    "many heads": {
        "sample_size": 16,
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (32, 64, 96),
        "down_block_types": (D, A, A),
        "up_block_types": (V, V, U),
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    },
    "base that is no power of two": {
        "sample_size": 8,
        "block_out_channels": (48, 96),
        "down_block_types": (A, A),
        "up_block_types": (V, V),
        "attention_head_dim": 24,
        "norm_num_groups": 8,
        "layers_per_block": 1,
    },
}
WIDTHS = {name: (0.5, 1.0) if "no power" in name else (0.25, 0.5, 0.75, 1.0) for name in CONFIGS}
TIMES = torch.tensor([0, 37, 999])


def make(name: str, folder: Path, **changes: Any) -> nn.Module:
    """Save a UNet2DModel with random weights in `folder` and return it."""
    network = diffusers.UNet2DModel(**CONFIGS[name] | changes).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, weights in network.named_parameters():
            spread = 0.3 if weights.ndim == 1 else weights[0].numel() ** -0.5
            drawn = spread * torch.randn(weights.shape, generator=generator)
            weights.copy_(drawn + ("norm" in key and key.endswith("weight")))
    network.save_pretrained(folder)
    return network


def images(name: str) -> Tensor:
    config = CONFIGS[name]
    shape = (3, config.get("in_channels", 3), config["sample_size"], config["sample_size"])
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_full_width_computes_what_diffusers_computes_and_so_does_the_way_back(
    name: str, sort: bool, tmp_path: Path
) -> None:
    theirs, x = make(name, tmp_path / "in"), images(name)
    import_unet2d(tmp_path / "in", tmp_path / "out", WIDTHS[name], sort=sort)
    (tmp_path / "out" / ORIGIN_FILE).unlink()  # as after a training: the channels stay in their new order
    supernet, _ = load_supernet(tmp_path / "out")
    export_unet2d(tmp_path / "out", tmp_path / "back")
    back = diffusers.UNet2DModel.from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        expected = theirs(x, TIMES).sample
        assert expected.std() > 0.1
        torch.testing.assert_close(supernet(x, TIMES.float()), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(back(x, TIMES).sample, expected, atol=1e-5, rtol=0)
        # In float64 nothing is left of the order of additions, so what remains would be a mistake.
        double = theirs.double()(x.double(), TIMES).sample
        torch.testing.assert_close(back.double()(x.double(), TIMES).sample, double, atol=1e-10, rtol=0)
        torch.testing.assert_close(supernet.double()(x.double(), TIMES.float()), double, atol=1e-10, rtol=0)


@pytest.mark.parametrize("sort", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_round_trip_changes_no_bit(name: str, sort: bool, tmp_path: Path) -> None:
    theirs, x = make(name, tmp_path / "in"), images(name)
    import_unet2d(tmp_path / "in", tmp_path / "out", WIDTHS[name], sort=sort)
    export_unet2d(tmp_path / "out", tmp_path / "back")
    back = diffusers.UNet2DModel.from_pretrained(tmp_path / "back").eval()
    assert back.state_dict().keys() == theirs.state_dict().keys()
    for key, weights in back.state_dict().items():
        assert torch.equal(weights, theirs.state_dict()[key]), key
    with torch.no_grad():
        assert torch.equal(back(x, TIMES).sample, theirs(x, TIMES).sample)


@pytest.mark.parametrize("name", CONFIGS)
def test_narrow_widths_are_plain_networks_of_whole_heads(name: str, tmp_path: Path) -> None:
    make(name, tmp_path / "in")
    import_unet2d(tmp_path / "in", tmp_path / "out", WIDTHS[name])
    supernet, _ = load_supernet(tmp_path / "out")
    x = images(name)
    with torch.no_grad():
        for width in WIDTHS[name]:
            computed = supernet.subnet(width)(x, TIMES.float())
            assert torch.equal(computed, supernet(x, TIMES.float(), width))
            assert computed.isfinite().all()


def test_a_network_of_ours_goes_to_diffusers(tmp_path: Path) -> None:
    settings = NetworkSettings(base=16, multipliers=(1, 2), attention=(8,), groups=4, blocks=2)
    supernet = Supernet(settings, 1, 8).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in supernet.parameters():
            weights.add_(0.2 * torch.randn(weights.shape, generator=generator))
    save_supernet(supernet, tmp_path / "ours", DiffusionSettings(), "digits", "f" * 64)
    export_unet2d(tmp_path / "ours", tmp_path / "theirs")
    theirs, x = diffusers.UNet2DModel.from_pretrained(tmp_path / "theirs").eval(), torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x, TIMES).sample, supernet(x, TIMES.float()), atol=1e-5, rtol=0)


def test_a_conditional_network_of_ours_goes_to_diffusers_with_its_null_class(tmp_path: Path) -> None:
    supernet = Supernet(NetworkSettings(base=16, multipliers=(1, 2), groups=4, classes=5), 1, 8).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in supernet.parameters():
            weights.add_(0.2 * torch.randn(weights.shape, generator=generator))
    save_supernet(supernet, tmp_path / "ours", DiffusionSettings(), "digits", "f" * 64)
    export_unet2d(tmp_path / "ours", tmp_path / "theirs")
    theirs, x = diffusers.UNet2DModel.from_pretrained(tmp_path / "theirs").eval(), torch.randn(3, 1, 8, 8)
    label = torch.tensor([4, 0, 5])
    with torch.no_grad():
        expected = supernet(x, TIMES.float(), 1.0, label)
        torch.testing.assert_close(theirs(x, TIMES, class_labels=label).sample, expected, atol=1e-5, rtol=0)
        assert torch.equal(expected[2], supernet(x, TIMES.float())[2])
    import_unet2d(tmp_path / "theirs", tmp_path / "again", null_class="last")
    again, card = load_supernet(tmp_path / "again")
    assert card.network.classes == 5
    assert card.made_with["null_class"] == "last"
    with torch.no_grad():
        torch.testing.assert_close(again(x, TIMES.float(), 1.0, label), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("null_class", ["last", "none"])
def test_a_conditional_model_comes_in_with_or_without_a_null_class_and_goes_back_as_it_came(
    null_class: NullClass, tmp_path: Path
) -> None:
    theirs, x = make("many heads", tmp_path / "in", num_class_embeds=7), images("many heads")
    card = import_unet2d(tmp_path / "in", tmp_path / "out", null_class=null_class)
    assert card.network.classes == {"last": 6, "none": 7}[null_class]
    supernet, _ = load_supernet(tmp_path / "out")
    label = torch.tensor([0, 6, 3])
    with torch.no_grad():
        expected = theirs(x, TIMES, class_labels=label).sample
        torch.testing.assert_close(supernet(x, TIMES.float(), 1.0, label), expected, atol=1e-5, rtol=0)
        others = theirs(x, TIMES, class_labels=label.roll(1)).sample
        assert (others - expected).abs().max() > 0.01  # the labels do count
        if null_class == "none":
            assert not supernet.widest.label.weight[7].any()
    export_unet2d(tmp_path / "out", tmp_path / "back")
    back = diffusers.UNet2DModel.from_pretrained(tmp_path / "back").eval()
    assert back.config.num_class_embeds == 7
    for key, weights in theirs.state_dict().items():
        assert torch.equal(weights, back.state_dict()[key]), key


def test_a_null_class_needs_classes(tmp_path: Path) -> None:
    make("many heads", tmp_path / "in")
    with pytest.raises(InputError, match=r"a null class \('last'\) needs num_class_embeds"):
        import_unet2d(tmp_path / "in", tmp_path / "out", null_class="last")


def test_a_ddsm_checkpoint_goes_to_diffusers(tmp_path: Path) -> None:
    weights = random_weights(64, [1, 2], 1, {1})
    torch.save({"ema_model": weights}, tmp_path / "ckpt.pt")
    import_ddsm(tmp_path / "ckpt.pt", tmp_path / "ours", (1.0,), 8, 16)
    export_unet2d(tmp_path / "ours", tmp_path / "theirs")
    theirs, x = diffusers.UNet2DModel.from_pretrained(tmp_path / "theirs").eval(), torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        expected = ddsm_forward(weights, x, TIMES, 1.0, 16)
        torch.testing.assert_close(theirs(x, TIMES).sample, expected, atol=1e-5, rtol=0)


def test_norms_of_several_group_counts_cannot_go_to_diffusers(tmp_path: Path) -> None:
    supernet = Supernet(NetworkSettings(base=16, multipliers=(1, 2)), 1, 8)
    save_supernet(supernet, tmp_path, DiffusionSettings(), "digits", "f" * 64)
    with pytest.raises(InputError, match=r"have 4, 8, 12, 16 groups; a UNet2DModel has one number"):
        export_unet2d(tmp_path, tmp_path / "unet")
    assert not (tmp_path / "unet").exists()


def test_names_of_the_first_published_models_are_known(tmp_path: Path) -> None:
    make("many heads", tmp_path / "in")
    weights = load_file(tmp_path / "in" / WEIGHTS_FILE)
    import_unet2d(tmp_path / "in", tmp_path / "new")
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for now, then in new.items():
        weights = {k.replace(f".{now}.", f".{then}."): v for k, v in weights.items()}
    save_file(weights, tmp_path / "in" / WEIGHTS_FILE)
    assert import_unet2d(tmp_path / "in", tmp_path / "old").digest == load_supernet(tmp_path / "new")[1].digest


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_a_pipelines_folder_says_its_noise(schedule: str, tmp_path: Path) -> None:
    network = make("many heads", tmp_path / "unused")
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=200, beta_schedule=schedule, beta_start=2e-4, beta_end=0.05, prediction_type="epsilon"
    )
    diffusers.DDPMPipeline(network, scheduler).save_pretrained(tmp_path / "pipeline")
    card = import_unet2d(tmp_path / "pipeline", tmp_path / "out")
    expected = noise_schedule(card.diffusion).alpha_bar
    torch.testing.assert_close(torch.from_numpy(expected).float(), scheduler.alphas_cumprod, rtol=1e-5, atol=1e-8)
    path = tmp_path / "pipeline" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "v_prediction"}))
    for folder in (tmp_path / "pipeline", tmp_path / "pipeline" / "unet"):
        for number, betas in enumerate((None, DiffusionSettings())):
            other = import_unet2d(folder, tmp_path / f"{folder.name}-{number}", diffusion=betas)
            assert other.diffusion.prediction == "v"
            assert other.diffusion.beta_last == (0.05 if betas is None else 0.02)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "other class": (
        {"_class_name": "UNet2DConditionModel"},
        "is the config of a UNet2DConditionModel; only UNet2DModel",
    ),
    "classes": ({"num_class_embeds": 10}, r"num_class_embeds is 10, and no file tells .*--null-class last or"),
    "other classes": (
        {"class_embed_type": "timestep"},
        r"class_embed_type: input should be null \(given: 'timestep'\)",
    ),
    "scale and shift": ({"resnet_time_scale_shift": "scale_shift"}, r"should be 'default' \(given: 'scale_shift'\)"),
    "activation": ({"act_fn": "gelu"}, r"act_fn: input should be 'silu' or 'swish' \(given: 'gelu'\)"),
    "centred input": ({"center_input_sample": True}, "center_input_sample: input should be False"),
    "mid scale": ({"mid_block_scale_factor": 2}, "mid_block_scale_factor: input should be less than or equal to 1"),
    "learned time": ({"time_embedding_type": "learned"}, "time_embedding_type: input should be 'positional'"),
    "other blocks": ({"down_block_types": [D, "SkipDownBlock2D", A]}, "down_block_types.1: input should be 'DownBlock"),
    "up unlike down": (
        {"up_block_types": [U, V, U]},
        "up_block_types is .*possible: attention where the reversed down_",
    ),
    "uneven channels": ({"block_out_channels": [32, 48, 96]}, r"block_out_channels is \(32, 48, 96\); .* multiples"),
    "no channels": ({"block_out_channels": []}, "block_out_channels: tuple should have at least 1 item"),
    "learned variance": ({"out_channels": 2}, "out_channels is 2; possible: as many as in_channels, 1"),
    "groups": ({"norm_num_groups": 5}, "norm_num_groups is 5; possible: divisors"),
    "unknown key": ({"novel": 3}, "unknown setting 'novel'"),
    "no size": ({"sample_size": None}, "sample_size is None; set the side of the images with --resolution"),
    "oblong": ({"sample_size": [16, 32]}, r"sample_size is \(16, 32\); set the side of the images"),
    "another base": ({"block_out_channels": [64, 128, 192]}, r"tensor for .* is \(.*has"),
    "fewer layers": ({"layers_per_block": 1}, "belongs to no layer of its config"),
    "more layers": ({"layers_per_block": 3}, "no tensor .*, which its config requires"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_equal_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    change, says = REFUSED[name]
    make("many heads", tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=says) as caught:
        import_unet2d(tmp_path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_safetensors_and_widths_of_half_heads_are_refused(tmp_path: Path) -> None:
    make("many heads", tmp_path / "in")
    with pytest.raises(InputError, match="12 channels of attention are not a multiple of 8"):
        import_unet2d(tmp_path / "in", tmp_path / "out", (0.125, 1.0))
    (tmp_path / "in" / WEIGHTS_FILE).rename(tmp_path / "in" / "model.safetensors")
    with pytest.raises(InputError, match=r"no diffusion_pytorch_model\.safetensors in .*; found: config\.json, "):
        import_unet2d(tmp_path / "in", tmp_path / "out")
    with pytest.raises(InputError, match="no UNet2DModel config at"):
        import_unet2d(tmp_path / "absent", tmp_path / "out")
