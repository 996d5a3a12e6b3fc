"""DiTTransformer2DModels of diffusers, in and out: equal outputs, equal weights, and refusals in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from stepfront import load_settings
from stepfront.errors import InputError
from stepfront.search.cli.main import app
from stepfront.trainers.interop.assembly import ORIGIN_FILE
from stepfront.trainers.interop.diffusers_import import import_diffusers
from stepfront.trainers.interop.dit.inner_importance import inner_streams
from stepfront.trainers.interop.dit.transformer import export_dit, import_dit
from stepfront.trainers.interop.model_weights import WEIGHTS_FILE
from stepfront.trainers.networks.dit import DiT
from stepfront.trainers.networks.supernet_files import load_supernet

diffusers = pytest.importorskip("diffusers")

SIZES: dict[str, Any] = {
    **{"num_attention_heads": 4, "attention_head_dim": 8, "in_channels": 3, "num_layers": 2, "sample_size": 8},
    **{"patch_size": 2, "num_embeds_ada_norm": 5},
}
WIDTHS = (0.25, 0.5, 1.0)


@torch.no_grad()
def random_transformer(shared: bool, **config: Any) -> Any:
    """Return a DiTTransformer2DModel in which every parameter is random; `shared`: blocks embed times alike."""
    torch.manual_seed(0)
    model = diffusers.DiTTransformer2DModel(**(SIZES | config)).eval()
    for weights in model.parameters():
        weights.normal_(std=0.3 if weights.ndim == 1 else weights[0].numel() ** -0.5)
    if shared:
        for block in model.transformer_blocks:
            block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def save(shared: bool = True, **config: Any) -> Path:
        path = tmp_path_factory.mktemp("transformer")
        random_transformer(shared, **config).save_pretrained(path)
        return path

    return save


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("variances", [False, True])
@torch.no_grad()
def test_a_transformer_computes_what_diffusers_computes_and_returns_bit_for_bit(
    tmp_path: Path, shared: bool, variances: bool
) -> None:
    model = random_transformer(shared, out_channels=6 if variances else 3)
    model.save_pretrained(tmp_path / "theirs")
    said: list[str] = []
    import_dit(tmp_path / "theirs", tmp_path / "ours", WIDTHS, say=said.append)
    assert any("left out: the learnt variances, 3 of 6" in line for line in said) == variances
    assert any("compared with diffusers: the largest difference" in line for line in said)
    supernet, card = load_supernet(tmp_path / "ours")
    x, times, label = torch.randn(3, 3, 8, 8), torch.tensor([0, 37, 999]), torch.tensor([0, 4, 5])
    expected = model(x, times, class_labels=label).sample[:, :3]
    torch.testing.assert_close(
        supernet(x, times.float(), 1.0, label), expected, rtol=0, atol=1e-5 * expected.abs().max()
    )
    assert (card.network.classes, card.network.dit.slim) == (5, "inner")  # diffusers adds the null class
    assert card.network.dit.embedders == ("shared" if shared else "per_block")

    export_dit(tmp_path / "ours", tmp_path / "back")
    again = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "back").eval()
    for name, value in model.state_dict().items():
        back = again.state_dict()[name]
        if name.startswith("proj_out_2"):
            value = value.unflatten(0, (4, -1))[:, :3].flatten(0, 1)
        assert torch.equal(back, value), name
    assert set(load_file(tmp_path / "back" / WEIGHTS_FILE)) == set(model.state_dict())


def test_narrow_widths_keep_the_most_important_heads_and_hidden_channels(
    tmp_path: Path, folder: Callable[..., Path]
) -> None:
    theirs = folder()
    card = import_dit(theirs, tmp_path / "sorted", WIDTHS)
    import_dit(theirs, tmp_path / "as they were", WIDTHS, sort=False)
    assert card.made_with["sorted"]
    networks = []
    for name in ("sorted", "as they were"):
        network = load_supernet(tmp_path / name)[0].widest
        assert isinstance(network, DiT)
        networks.append(network)
    for stream in inner_streams(networks[0]):
        pieces = stream.importance.view(4, -1).sum(1) if stream.channels == 32 else stream.importance  # 4 heads
        assert torch.equal(pieces, pieces.sort(descending=True).values)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([5.0, 700.0])
    with torch.no_grad():
        torch.testing.assert_close(networks[0](x, t), networks[1](x, t), rtol=0, atol=1e-5)
    assert not torch.equal(networks[0].blocks[0].qkv.weight, networks[1].blocks[0].qkv.weight)


def test_a_network_that_was_trained_since_is_exported_as_it_is(tmp_path: Path, folder: Callable[..., Path]) -> None:
    import_dit(folder(), tmp_path / "ours", WIDTHS)
    (tmp_path / "ours" / ORIGIN_FILE).unlink()  # as after a training: heads stay in their new order
    export_dit(tmp_path / "ours", tmp_path / "back")
    import_dit(tmp_path / "back", tmp_path / "again", WIDTHS, sort=False)
    before, after = (load_supernet(tmp_path / name)[0].widest.state_dict() for name in ("ours", "again"))
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def edited(source: Path, target: Path, **changes: Any) -> Path:
    """Copy a folder with other keys in its config."""
    target.mkdir()
    (target / WEIGHTS_FILE).symlink_to(source / WEIGHTS_FILE)
    config = json.loads((source / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_type": "ada_norm_single"}, "norm_type: input should be 'ada_norm_zero'"),
        ({"activation_fn": "geglu"}, "activation_fn: input should be 'gelu-approximate' (given: 'geglu')"),
        ({"attention_bias": False}, "attention_bias: input should be True (given: False)"),
        ({"caption_channels": 4096}, "unknown setting 'caption_channels'"),
        ({"out_channels": 5}, "out_channels is 5; possible: 3, as many as in_channels, or 6 with learnt variances"),
        ({"num_layers": 3}, "no tensor transformer_blocks.2."),
        ({"num_layers": 1}, "transformer_blocks.1."),
        ({"attention_head_dim": 4}, "is (128,); a transformer of 16 channels and 2 blocks has (64,)"),
        ({"patch_size": 4}, "the tensors have other shapes than"),
        ({"_class_name": "PixArtTransformer2DModel"}, "is the config of a PixArtTransformer2DModel"),
    ],
)
def test_what_is_no_such_transformer_is_refused_by_name(
    tmp_path: Path, folder: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        import_dit(edited(folder(), tmp_path / "edited", **changes), tmp_path / "out", WIDTHS)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_of_another_kind_of_network_are_refused(tmp_path: Path, folder: Callable[..., Path]) -> None:
    theirs = folder()
    with pytest.raises(InputError, match="sample_size is 8, not 16; leave out --resolution"):
        import_diffusers(theirs, tmp_path / "out", WIDTHS, resolution=16)
    with pytest.raises(InputError, match="its null class; leave out --null-class none"):
        import_diffusers(theirs, tmp_path / "out", WIDTHS, null_class="none")
    with pytest.raises(InputError, match=r"width 0.3 of 4 heads .* is 1.2 heads"):
        import_diffusers(theirs, tmp_path / "out", (0.3, 1.0))


def test_the_first_published_class_and_a_pipelines_transformer_are_taken(
    tmp_path: Path, folder: Callable[..., Path]
) -> None:
    theirs = edited(
        folder(),
        tmp_path / "transformer",
        _class_name="Transformer2DModel",
        cross_attention_dim=None,
        use_linear_projection=False,
    )
    index = {"_class_name": "DiTPipeline", "scheduler": ["diffusers", "DDIMScheduler"]}
    index |= {"transformer": ["diffusers", "Transformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    (tmp_path / "scheduler").mkdir()
    scheduler = {"_class_name": "DDIMScheduler", "beta_start": 0.0002, "beta_schedule": "linear"}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"block_out_channels": [8, 16, 16]}))
    for number, place in enumerate((tmp_path, theirs)):
        card = import_diffusers(place, tmp_path / f"out{number}", WIDTHS)
        assert card.made_with["autoencoder"] == str(tmp_path / "vae")
        assert card.made_with["latent_pixels"] == 4
        assert card.network.family == "dit"
        assert card.diffusion.beta_first == 0.0002
    arguments = ["import", "diffusers", str(tmp_path), "--out", str(tmp_path / "runs" / "start"), "--widths", "0.5,1"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    settings = load_settings(tmp_path / "runs" / "start" / "config.yaml")
    assert (settings.data.size, settings.data.channels) == (32, 3)  # latents of 8x8, each of 4x4 pixels
    assert settings.data.autoencoder == str(tmp_path / "vae")


def test_the_command_finds_a_transformer_and_exports_it(tmp_path: Path, folder: Callable[..., Path]) -> None:
    run = CliRunner().invoke
    out = tmp_path / "runs" / "start"
    done = run(app, ["import", "diffusers", str(folder()), "--out", str(out), "--widths", "0.5,1", "--slim", "all"])
    assert done.exit_code == 0, done.output
    assert "slim: all" not in (text := (out / "config.yaml").read_text())  # the default of a settings file
    assert "family: dit" in text
    refused = run(app, ["export", str(out), "--as", "unet2d", "--out", str(tmp_path / "unet")])
    assert "a DiT is not the U-Net of family unet" in str(refused.exception or refused.output)
    done = run(app, ["export", str(out), "--as", "dit", "--out", str(tmp_path / "back")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "back" / "config.json").exists()
