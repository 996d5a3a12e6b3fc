"""Folders of models as people have them: pipelines of other kinds, shards, prefixes, averages, extra values."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from stepfront import load_settings
from stepfront.errors import InputError
from stepfront.search.cli.main import app
from stepfront.trainers.interop.diffusers_folder import ModelFolder, clip_of
from stepfront.trainers.interop.model_weights import WEIGHTS_FILE, own_tensors
from stepfront.trainers.interop.round_trip import compare, run_in_diffusers
from stepfront.trainers.interop.scheduler_file import clipping_of, read_scheduler
from stepfront.trainers.interop.unet2d import import_unet2d
from stepfront.trainers.networks.supernet_files import load_supernet

diffusers = pytest.importorskip("diffusers")
SMALL: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
WIDTHS = (0.5, 1.0)


def small() -> Any:
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**SMALL)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    small().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def digest_of(folder: Path, said: list[str] | None = None) -> str:
    say = (lambda text: None) if said is None else said.append
    return import_unet2d(folder, folder.parent / f"out-{folder.name}", WIDTHS, say=say).digest


def test_shards_and_wrappers_hold_the_same_network(model: Path, tmp_path: Path) -> None:
    expected, said = digest_of(model), list[str]()
    small().save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert digest_of(tmp_path / "shards") == expected
    weights = load_file(model / WEIGHTS_FILE)
    extra = {"n_averaged": torch.tensor(3), "module.step": torch.tensor(7)}
    for prefix in ("module.", "_orig_mod.", "_orig_mod.module."):
        save_file({prefix + name: value for name, value in weights.items()} | extra, model / WEIGHTS_FILE)
        (tmp_path / "out-model" / "supernet.json").unlink()
        assert digest_of(model, said) == expected
    assert any("the prefix '_orig_mod.module.' is removed; left out: 2" in text for text in said)


def test_an_average_of_diffusers_is_taken_with_its_own_keys(tmp_path: Path) -> None:
    average = diffusers.training_utils.EMAModel(
        small().parameters(), model_cls=diffusers.UNet2DModel, model_config=small().config
    )
    average.save_pretrained(tmp_path / "unet_ema")
    assert "min_decay" in json.loads((tmp_path / "unet_ema" / "config.json").read_text())
    small().save_pretrained(tmp_path / "unet")
    assert digest_of(tmp_path / "unet_ema") == digest_of(tmp_path / "unet")


def test_what_is_guessed_is_said_and_a_scheduler_near_it_is_used(model: Path, tmp_path: Path) -> None:
    said = list[str]()
    digest_of(model, said)
    assert any(text.startswith("guessed: there is no scheduler beside ") and "--scheduler" in text for text in said)
    assert any(text.startswith("compared with diffusers: the largest difference is ") for text in said)
    diffusers.DDIMScheduler(num_train_timesteps=50).save_pretrained(tmp_path / "scheduler")
    (tmp_path / "checkpoint-5").mkdir()
    model.rename(tmp_path / "checkpoint-5" / "unet")
    said.clear()
    card = import_unet2d(tmp_path / "checkpoint-5" / "unet", tmp_path / "near", WIDTHS, say=said.append)
    assert card.diffusion.steps == 50
    assert not any(text.startswith("guessed") for text in said)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"_class_name": "FlowMatchLCMScheduler"}, "is for another kind of flow matching"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "invert_sigmas is set"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 0}, "shift: input should be greater than 0"),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "v_prediction"}, "with EDM's preconditioning"),
        ({"_class_name": "EDMEulerScheduler", "sigma_max": 20.0}, "sigma_min and sigma_max are 0.002 and 20.0"),
        ({"_class_name": "ScoreSdeVeScheduler"}, "is variance-exploding"),
        ({"_class_name": "CMStochasticIterativeScheduler"}, "is for consistency models"),
        ({"_class_name": "SomethingNewScheduler"}, "no betas that stepfront knows"),
        ({"num_train_timesteps": 1000}, "file without _class_name"),
        ({"_class_name": "DDPMScheduler", "prediction_type": "score"}, "predicts 'score'; possible: 'epsilon'"),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'"),
        ({"_class_name": "DDIMScheduler", "trained_betas": [0.1] * 1000}, r"trained_betas is \[0\.1, 0\.1"),
        ({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is True"),
        ({"_class_name": "DDIMScheduler", "num_train_timesteps": "many"}, "steps: input should be a whole number"),
    ],
)
def test_a_scheduler_of_something_else_is_named(config: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=says) as caught:
        read_scheduler(tmp_path / "s.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("config", "prediction", "schedule"),
    [
        ({"_class_name": "DDPMScheduler", "predict_epsilon": False}, "sample", "linear"),
        ({"_class_name": "DDPMScheduler", "prediction_type": "v_prediction"}, "v", "linear"),
        ({"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction"}, "flow", "flow"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True, "flow_shift": 3.0}, "flow", "flow"),
        ({"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.4}, "edm", "edm"),
    ],
)
def test_what_a_network_predicts_comes_from_its_scheduler(
    config: dict[str, Any], prediction: str, schedule: str, tmp_path: Path
) -> None:
    (tmp_path / "s.json").write_text(json.dumps(config))
    found = read_scheduler(tmp_path / "s.json")
    assert (found.prediction, found.schedule) == (prediction, schedule)
    assert (found.shift, found.data_std) == (config.get("flow_shift", 1.0), config.get("sigma_data", 0.5))


@pytest.mark.parametrize(
    ("name", "given", "clipping"),
    [
        ("DDPMScheduler", {}, "unit"),
        ("DDIMScheduler", {"clip_sample": False}, "none"),
        ("DDIMScheduler", {"clip_sample_range": 2.0}, "other"),
        ("PNDMScheduler", {}, "none"),
        ("EulerDiscreteScheduler", {}, "none"),
        ("HeunDiscreteScheduler", {"clip_sample": True}, "unit"),
        ("UnCLIPScheduler", {}, "unit"),
        ("DPMSolverMultistepScheduler", {"thresholding": True}, "unit"),
        ("DDPMScheduler", {"thresholding": True, "sample_max_value": 1.5}, "other"),
    ],
)
def test_clamping_is_that_of_the_scheduler_with_or_without_its_defaults_in_the_file(
    name: str, given: dict[str, Any], clipping: str, tmp_path: Path
) -> None:
    getattr(diffusers, name)(**given).save_pretrained(tmp_path)
    (tmp_path / "short.json").write_text(json.dumps({"_class_name": name, **given}))
    assert clipping_of(tmp_path / "scheduler_config.json") == clipping
    assert clipping_of(tmp_path / "short.json") == clipping


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "PNDMScheduler", "EulerDiscreteScheduler"])
def test_keys_that_a_scheduler_ignores_clamp_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"_class_name": name, "clip_sample": True}))
    assert clipping_of(tmp_path / "s.json") == "none"
    assert "clip_sample" not in inspect.signature(getattr(diffusers, name).__init__).parameters


def test_thresholding_with_a_greatest_value_of_one_clamps_to_one() -> None:
    x = 3 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs = diffusers.DDPMScheduler(thresholding=True)._threshold_sample(x)
    torch.testing.assert_close(theirs, x.clamp(-1, 1), rtol=0, atol=0)


@pytest.mark.parametrize("clip", [True, False])
def test_the_written_settings_clamp_where_the_scheduler_does(clip: bool, model: Path, tmp_path: Path) -> None:
    diffusers.DDPMScheduler(clip_sample=clip).save_pretrained(model)
    out = tmp_path / "run" / "start"
    done = CliRunner().invoke(app, ["import", "diffusers", str(model), "--out", str(out), "--widths", "1"])
    assert done.exit_code == 0, done.output
    assert load_settings(out / "config.yaml").sampler.clip == clip
    assert ("so config.yaml has sampler.clip: true" in done.output) == clip


def test_what_is_not_clamped_is_said(tmp_path: Path) -> None:
    path = tmp_path / "scheduler_config.json"
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"clip_sample_range": 2.0}, 3, "a clip_sample_range"),
        ({}, 4, "4 channels is taken for latents, which are not clamped"),
    ]
    for given, channels, says in cases:
        said = list[str]()
        path.write_text(json.dumps({"_class_name": "DDIMScheduler", **given}))
        assert clip_of(ModelFolder(tmp_path, path), channels, said.append) == {}
        assert [says in text for text in said] == [True]


INDEXES = {
    "latent": ({"movq": ["diffusers", "MoVQ"]}, "works in the latent space of its movq, a MoVQ; possible: Auto"),
    "transformer": (
        {"unet": [None, None], "transformer": ["diffusers", "PixArtTransformer2DModel"]},
        r"has no unet; it holds scheduler \(DDPMScheduler\), transformer \(PixArt",
    ),
}


@pytest.mark.parametrize("case", INDEXES)
@pytest.mark.parametrize("part", ["", "unet"])
def test_pipelines_of_other_kinds_are_named(case: str, part: str, model: Path, tmp_path: Path) -> None:
    change, says = INDEXES[case]
    model.rename(tmp_path / "unet")
    index = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "LDMPipeline", **index, **change}))
    with pytest.raises(InputError, match=says):
        import_unet2d(tmp_path / part, tmp_path / "out", WIDTHS)


def test_folders_that_are_not_complete_say_what_is_missing(model: Path, tmp_path: Path) -> None:
    def refusal(folder: Path) -> str:
        with pytest.raises(InputError) as caught:
            import_unet2d(folder, tmp_path / "out", WIDTHS)
        assert not (tmp_path / "out").exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "give the folder with config.json" in refusal(model / WEIGHTS_FILE)
    weights = load_file(model / WEIGHTS_FILE)
    save_file(weights, model / "diffusion_pytorch_model.fp16.safetensors")
    (model / WEIGHTS_FILE).rename(model / "diffusion_pytorch_model.non_ema.safetensors")
    assert "holds the weights several times" in refusal(model)
    (model / "diffusion_pytorch_model.non_ema.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "../x.safetensors")}
    path = model / f"{WEIGHTS_FILE}.index.json"
    path.write_text(json.dumps(index))
    assert "which is not a file of its folder" in refusal(model)
    path.write_text(json.dumps(index | {"weight_map": {"a": "a.safetensors"}}))
    (model / "diffusion_pytorch_model.fp16.safetensors").unlink()
    assert "no weights at" in refusal(model)
    save_file(weights, model / "a.safetensors")
    assert "is in no shard" in refusal(model)
    path.write_text("{}")
    assert "has no weight_map" in refusal(model)
    model.rename(tmp_path / "unet")
    assert f"give {tmp_path / 'unet'}" in refusal(tmp_path)


def test_of_several_networks_the_average_is_taken() -> None:
    one, two, said = torch.ones(1, 1), torch.zeros(1, 1), list[str]()
    content = {"model": {"conv_in.weight": one}, "ema_model.conv_in.weight": two, "epoch": 3, "name": "run"}
    assert own_tensors(content, "conv_in.weight", Path("f"), said.append) == {"conv_in.weight": two}
    assert said == ["f: the prefix 'ema_model.' is removed; left out: 3 (epoch, model.conv_in.weight, name)"]
    with pytest.raises(InputError, match=r"f holds several networks \('a\.', 'b\.'\); save one of them"):
        own_tensors({"a.conv_in.weight": one, "b.conv_in.weight": two}, "conv_in.weight", Path("f"))


def test_a_network_that_computes_something_else_than_diffusers_is_refused(model: Path, tmp_path: Path) -> None:
    digest_of(model)
    supernet, card = load_supernet(tmp_path / "out-model")
    theirs = load_file(model / WEIGHTS_FILE)
    theirs["conv_out.bias"] += 1.0
    reference = run_in_diffusers(model / "config.json", theirs, 8, card.diffusion.steps, lambda text: None)
    assert reference is not None
    with pytest.raises(InputError, match="the imported network differs from diffusers' by "):
        compare(supernet, reference, model, lambda text: None)
