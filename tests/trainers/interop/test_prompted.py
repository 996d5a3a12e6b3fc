"""UNet2DConditionModels on fixed prompts: what diffusers computes, reuse of features, costs, and refusals in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stepfront.errors import InputError
from stepfront.trainers.diffusion.conditioning import Condition
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.interop.diffusers_import import import_diffusers
from stepfront.trainers.interop.model_weights import WEIGHTS_FILE
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.noise_schedule import noise_schedule
from tests.trainers.latents.conftest import make_autoencoder

diffusers = pytest.importorskip("diffusers")
TOKENS, CHANNELS, PROMPTS = 5, 8, 3
CPU = torch.device("cpu")
SIZES = {
    *("sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block", "norm_num_groups"),
    *("down_block_types", "up_block_types", "attention_head_dim", "cross_attention_dim"),
}


def make_text_pipeline(folder: Path, side: int = 8, **config: Any) -> Path:
    """Write the folder of a small random Stable Diffusion pipeline, without its text encoder."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4}
    sizes |= {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "layers_per_block": 1}
    sizes |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": CHANNELS}
    sizes |= {"sample_size": side, "in_channels": 2, "out_channels": 2}
    diffusers.UNet2DConditionModel(**(sizes | config)).save_pretrained(folder / "unet")
    diffusers.PNDMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True
    ).save_pretrained(folder / "scheduler")
    make_autoencoder("AutoencoderKL", folder / "vae")
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    index |= {"vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"]}
    (folder / "model_index.json").write_text(json.dumps(index | {"scheduler": ["diffusers", "PNDMScheduler"]}))
    return folder


def make_conditions(path: Path, **others: Tensor) -> Path:
    """Write random text encoder outputs of three prompts, and the prompts beside them."""
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randn(PROMPTS, TOKENS, CHANNELS, generator=generator)
    save_file({"prompts": prompts, "empty": torch.randn(TOKENS, CHANNELS, generator=generator)} | others, path)
    path.with_suffix(".txt").write_text("a shirt\na coat\n\na boot\n")
    return path


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any, Tensor]:
    """Return a pipeline's folder, its supernet and card, and the table of its prompts, the empty one last."""
    folder = tmp_path_factory.mktemp("text")
    pipeline, conditions = make_text_pipeline(folder / "sd"), make_conditions(folder / "conditions.safetensors")
    import_diffusers(pipeline, folder / "start", conditions=conditions)
    supernet, card = load_supernet(folder / "start")
    return pipeline, supernet, card, supernet.widest.prompts.detach()


@torch.no_grad()
def test_it_computes_what_diffusers_computes(imported: tuple[Path, Any, Any, Tensor]) -> None:
    pipeline, supernet, card, table = imported
    assert (card.network.classes, card.network.widths, card.class_names) == (3, (1.0,), ("a shirt", "a coat", "a boot"))
    assert (card.made_with["autoencoder"], card.made_with["latent_pixels"]) == (str(pipeline / "vae"), 2)
    assert set(card.network.unet2d_condition.config) == SIZES
    theirs = diffusers.UNet2DConditionModel.from_pretrained(pipeline / "unet").eval()
    x, t = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(2)), torch.tensor([0.0, 1.0, 500.0, 999.0])
    label = torch.tensor([2, 0, 1, 3])
    expected = theirs(x, t, encoder_hidden_states=table[label]).sample
    assert torch.equal(supernet(x, t, 1.0, label), expected)
    assert torch.equal(supernet.subnet(1.0)(x, t, label), expected)
    empty = theirs(x, t, encoder_hidden_states=table[3:].expand(4, -1, -1)).sample
    assert torch.equal(supernet(x, t), empty)  # no label is the empty prompt
    assert not torch.allclose(empty, expected, atol=1e-3)


@torch.no_grad()
def test_deep_features_of_the_same_call_give_it_again(imported: tuple[Path, Any, Any, Tensor]) -> None:
    network = imported[1].widest
    generator = torch.Generator().manual_seed(3)
    x, t, label = torch.randn(2, 2, 8, 8, generator=generator), torch.tensor([9.0, 700.0]), torch.tensor([1, 3])
    eps, deep = network.with_features(x, t, label)
    assert torch.equal(eps, network(x, t, label))
    assert torch.equal(network.reusing(deep, x, t, label), eps)
    other = network.reusing(deep, x + 0.1, t, label)
    assert not torch.allclose(other, eps, atol=1e-3)  # the outermost level reads the image


def test_its_cost_is_counted(imported: tuple[Path, Any, Any, Tensor]) -> None:
    pipeline, supernet, card, _ = imported
    cost = count_width(card.network, 2, 8, 1.0)
    with torch.device("meta"):
        config = diffusers.UNet2DConditionModel.load_config(pipeline / "unet")
        theirs = diffusers.UNet2DConditionModel.from_config(config).eval()
        inputs = (torch.empty(1, 2, 8, 8), torch.empty(1), torch.empty(1, TOKENS, CHANNELS))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            theirs(*inputs)
    assert cost.macs == counter.get_total_flops() // 2
    assert cost.parameters == sum(p.numel() for p in theirs.parameters()) + (PROMPTS + 1) * TOKENS * CHANNELS
    assert cost.reuse_macs is not None
    assert 0.2 * cost.macs < cost.reuse_macs < 0.9 * cost.macs


@torch.no_grad()
def test_guided_sampling_is_that_of_diffusers(imported: tuple[Path, Any, Any, Tensor]) -> None:
    """Four DDIM steps under guidance, written once more with diffusers' own network and scheduler."""
    pipeline, supernet, card, table = imported
    times, noise = (999, 749, 499, 249), Noise(0, (2, 8, 8))
    condition = Condition(0, (1, 1, 1), 4.0, label=1)
    sampler = Sampler({1.0: supernet.subnet(1.0)}, noise_schedule(card.diffusion), noise, CPU, condition=condition)
    z = next(sampler.sample(Plan(tuple(map(float, times)), (1.0,) * 4, "ddim"), 2, 2))
    theirs = diffusers.UNet2DConditionModel.from_pretrained(pipeline / "unet").eval()
    config = json.loads((pipeline / "scheduler" / "scheduler_config.json").read_text())
    scheduler = diffusers.DDIMScheduler.from_config(config, timestep_spacing="trailing", clip_sample=False)
    scheduler.register_to_config(set_alpha_to_one=True)
    scheduler.final_alpha_cumprod = torch.tensor(1.0)
    scheduler.set_timesteps(4)
    assert tuple(scheduler.timesteps.tolist()) == times
    x, text = torch.from_numpy(noise.initial(range(2))), torch.cat([table[3:].expand(2, -1, -1), table[[1, 1]]])
    for t in scheduler.timesteps:
        empty, prompt = theirs(torch.cat([x, x]), t, encoder_hidden_states=text).sample.chunk(2)
        x = scheduler.step(empty + 4.0 * (prompt - empty), t, x).prev_sample
    torch.testing.assert_close(z, x, rtol=0, atol=1e-3 * float(x.abs().max()))


def test_what_does_not_fit_is_one_line(imported: tuple[Path, Any, Any, Tensor], tmp_path: Path) -> None:
    pipeline, good = imported[0], make_conditions(tmp_path / "good.safetensors")

    def says(conditions: Path | None, folder: Path = pipeline, **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            import_diffusers(folder, tmp_path / "out", conditions=conditions, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "with --conditions FILE.safetensors, and the prompts in FILE.txt beside it" in says(None)
    wide = torch.zeros(PROMPTS, TOKENS, 2 * CHANNELS)
    other = make_conditions(tmp_path / "other.safetensors", prompts=wide, empty=wide[0].clone())
    assert "possible: [K, L, 8] and [L, 8], K prompts of L tokens" in says(other)
    nan = make_conditions(tmp_path / "nan.safetensors", empty=torch.full((TOKENS, CHANNELS), np.nan))
    assert "values that are not finite; encode the prompts in float32" in says(nan)
    save_file({"prompts": torch.zeros(PROMPTS, TOKENS, CHANNELS)}, tmp_path / "none.safetensors")
    assert "has no tensor empty" in says(tmp_path / "none.safetensors")
    shutil.copy(good, tmp_path / "bare.safetensors")
    assert f"no prompts at {tmp_path / 'bare.txt'}; write the 3 prompts" in says(tmp_path / "bare.safetensors")
    (tmp_path / "bare.txt").write_text("a shirt\n")
    assert "has 1 prompts and " in says(tmp_path / "bare.safetensors")
    (tmp_path / "bare.txt").write_bytes("a shirt\nein Gürtel\na boot\n".encode("latin-1"))
    assert f"{tmp_path / 'bare.txt'} is not UTF-8; save" in says(tmp_path / "bare.safetensors")
    assert "the empty prompt is its null class" in says(good, null_class="last")
    assert "--slim all is for transformers, and this is none" in says(good, slim="all")
    assert "it reads text, so its one width is 1; leave out --widths 0.5,1" in says(good, widths=(0.5, 1.0))
    assert "its channels are not sorted; leave out --no-sort" in says(good, sort=False)


def test_sizes_and_prompts_are_read_as_they_are_written(tmp_path: Path) -> None:
    pipeline, conditions = make_text_pipeline(tmp_path / "sd"), make_conditions(tmp_path / "c.safetensors")
    path = pipeline / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": [8, 8]}))
    (tmp_path / "c.txt").write_text("a shirt\u2028of cotton\r\na\x0bcoat\na boot", encoding="utf-8")
    card = import_diffusers(pipeline, tmp_path / "out", conditions=conditions)
    assert (card.resolution, card.class_names) == (8, ("a shirt\u2028of cotton", "a\x0bcoat", "a boot"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": [8, 16]}))
    with pytest.raises(InputError, match=r"sample_size is \[8, 16\]; set the side of the images with --resol"):
        import_diffusers(pipeline, tmp_path / "other", conditions=conditions)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"in_channels": 9}, "in_channels is 9 and out_channels 2; possible: as many of both"),
        ({"addition_embed_type": "text_time"}, "addition_embed_type is 'text_time'; possible: null"),
        ({"cross_attention_dim": [8, 8]}, "cross_attention_dim is [8, 8]; possible: one number"),
    ],
)
def test_networks_that_read_more_are_refused(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    pipeline = make_text_pipeline(tmp_path / "sd")
    path = pipeline / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(InputError) as caught:
        import_diffusers(pipeline, tmp_path / "out", conditions=make_conditions(tmp_path / "c.safetensors"))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_without_weights_is_named(tmp_path: Path) -> None:
    pipeline = make_text_pipeline(tmp_path / "sd")
    (pipeline / "unet" / WEIGHTS_FILE).unlink()
    with pytest.raises(InputError, match=f"no {WEIGHTS_FILE} in .*unet; found: config.json"):
        import_diffusers(pipeline, tmp_path / "out", conditions=make_conditions(tmp_path / "c.safetensors"))


def test_sharded_pickles_are_converted_by_the_program_that_wrote_them(tmp_path: Path) -> None:
    pipeline, conditions = make_text_pipeline(tmp_path / "sd"), make_conditions(tmp_path / "c.safetensors")
    unet = pipeline / "unet"
    model = diffusers.UNet2DConditionModel.from_pretrained(unet)
    (unet / WEIGHTS_FILE).unlink()
    model.save_pretrained(unet, safe_serialization=False, max_shard_size="20KB")
    assert len(list(unet.glob("*.bin"))) > 1
    with pytest.raises(InputError, match=r"is a pickle, .* not read; convert it: load the model with") as caught:
        import_diffusers(pipeline, tmp_path / "out", conditions=conditions)
    code = str(caught.value).partition("such as ")[2].replace(", and call its ", ".")
    exec(code)
    import_diffusers(pipeline, tmp_path / "out", conditions=conditions)
