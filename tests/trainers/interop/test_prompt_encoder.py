"""Prompts in a text file: encoded as diffusers does, sampled as its pipeline does, and refused in a line."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stepfront.errors import InputError
from stepfront.trainers.diffusion.conditioning import Condition
from stepfront.trainers.diffusion.noise import Noise
from stepfront.trainers.diffusion.plan import Plan
from stepfront.trainers.diffusion.sampler import Sampler
from stepfront.trainers.interop.diffusers_import import import_diffusers
from stepfront.trainers.networks.supernet_files import load_supernet
from stepfront.trainers.noise_schedule import noise_schedule
from tests.trainers.interop.test_prompted import make_text_pipeline

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
TOKENS, CHANNELS = 10, 8
PROMPTS = "A red shirt\n\n  a  coat of RED wool  \na coat, a coat, a shirt, a coat\n"
LETTERS = "abcdefghijklmnopqrstuvwxyz,"


def make_tokenizer(folder: Path) -> None:
    """Write a CLIP tokenizer that knows letters, and `co`, `red</w>` of its merges."""
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "co", "re", "red</w>"]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc o\nr e\nre d</w>\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": TOKENS, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def make_pipeline(folder: Path, hidden: int = CHANNELS) -> Path:
    """Write the folder of a small random Stable Diffusion pipeline with its tokenizer and text encoder."""
    make_text_pipeline(folder)
    make_tokenizer(folder / "tokenizer")
    torch.manual_seed(3)
    config = transformers.CLIPTextConfig(
        hidden_size=hidden, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=60,
        max_position_embeddings=TOKENS, bos_token_id=57, eos_token_id=58, pad_token_id=58,
    )  # fmt: skip
    transformers.CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"tokenizer": ["transformers", "CLIPTokenizer"], "safety_checker": [None, None]}
    index |= {"feature_extractor": [None, None], "image_encoder": [None, None], "requires_safety_checker": False}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any, list[str]]:
    """Return a pipeline's folder, its supernet and card on three prompts, and what the import said."""
    folder, said = tmp_path_factory.mktemp("prompts"), list[str]()
    pipeline = make_pipeline(folder / "sd")
    (folder / "prompts.txt").write_text(PROMPTS, encoding="utf-8-sig")  # as Windows' editors save it
    import_diffusers(pipeline, folder / "start", prompts=folder / "prompts.txt", say=said.append)
    return pipeline, *load_supernet(folder / "start"), said


def pipeline_of(folder: Path) -> Any:
    return diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)


@torch.no_grad()
def test_prompts_are_encoded_as_diffusers_does(imported: tuple[Path, Any, Any, list[str]]) -> None:
    folder, supernet, card, said = imported
    texts = ["A red shirt", "a  coat of RED wool", "a coat, a coat, a shirt, a coat"]
    expected, empty = pipeline_of(folder).encode_prompt(texts, "cpu", 1, True)
    table = supernet.widest.prompts.detach()
    assert table.shape == (4, TOKENS, CHANNELS)
    torch.testing.assert_close(table, torch.cat([expected, empty[:1]]), rtol=0, atol=1e-5)
    assert min(float((table[i] - table[j]).abs().max()) for i in range(4) for j in range(i)) > 1e-2
    assert card.class_names == tuple(texts)
    assert {"prompts", "text_encoder", "conditions"} <= set(card.made_with)
    where = folder.parent / "prompts.txt"
    assert f"{where}: 1 empty line is left out" in said
    cut = "tokens; the text encoder reads 10, so this is cut:"
    assert [text for text in said if cut in text] == [
        f"{where}, line 3 has 13 {cut} ool",
        f"{where}, line 4 has 23 {cut} t , a shirt , a coat",
    ]


@torch.no_grad()
def test_images_are_those_of_the_pipeline(imported: tuple[Path, Any, Any, list[str]]) -> None:
    """Four guided DDIM steps of a StableDiffusionPipeline that reads the prompt as text."""
    folder, supernet, card, _ = imported
    noise = Noise(0, (2, 8, 8))
    condition = Condition(0, (1, 1, 1), 4.0, label=1)
    sampler = Sampler(
        {1.0: supernet.subnet(1.0)}, noise_schedule(card.diffusion), noise, torch.device("cpu"), condition=condition
    )
    times = (999.0, 749.0, 499.0, 249.0)
    z = next(sampler.sample(Plan(times, (1.0,) * 4, "ddim"), 2, 2))
    theirs = pipeline_of(folder)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = diffusers.DDIMScheduler.from_config(
        theirs.scheduler.config, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True
    )
    x = theirs(
        card.class_names[1], height=16, width=16, num_inference_steps=4, guidance_scale=4.0, num_images_per_prompt=2,
        latents=torch.from_numpy(noise.initial(range(2))), output_type="latent",
    ).images  # fmt: skip
    torch.testing.assert_close(z, x, rtol=0, atol=1e-3 * float(x.abs().max()))


@torch.no_grad()
def test_published_names_and_shards_are_read(imported: tuple[Path, Any, Any, list[str]], tmp_path: Path) -> None:
    """Older versions of transformers wrote `text_model.` before each name, and the positions' numbers."""
    pipeline = tmp_path / "sd"
    shutil.copytree(imported[0], pipeline)
    encoder, file = pipeline / "text_encoder", pipeline / "text_encoder" / "model.safetensors"
    tensors = {f"text_model.{name}": value for name, value in load_file(file).items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(TOKENS)[None]
    file.unlink()
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for part, own in parts.items():
        save_file({name: tensors[name] for name in own}, encoder / part)
    index = {"weight_map": {name: part for part, own in parts.items() for name in own}}
    (encoder / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "prompts.txt").write_text(PROMPTS)
    import_diffusers(pipeline, tmp_path / "start", prompts=tmp_path / "prompts.txt")
    supernet, _ = load_supernet(tmp_path / "start")
    assert torch.equal(supernet.widest.prompts, imported[1].widest.prompts)


def test_what_does_not_fit_is_one_line(
    imported: tuple[Path, Any, Any, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, prompts = tmp_path / "sd", tmp_path / "prompts.txt"
    shutil.copytree(imported[0], pipeline)
    prompts.write_text(PROMPTS)

    def says(path: Path = prompts, folder: Path = pipeline, **options: Any) -> str:
        with pytest.raises(InputError) as caught:
            import_diffusers(folder, tmp_path / "out", prompts=path, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def changed(name: str, **others: Any) -> None:
        content = json.loads((imported[0] / name).read_text()) | others
        (pipeline / name).write_text(json.dumps(content))

    assert f"no prompts at {tmp_path / 'no.txt'}: No such file or directory; write" in says(tmp_path / "no.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    assert f"{tmp_path / 'empty.txt'} holds no prompts; write one per line" in says(tmp_path / "empty.txt")
    both = says(conditions=tmp_path / "c.safetensors")
    assert f"--prompts {prompts} and --conditions {tmp_path / 'c.safetensors'} both give the prompts" in both
    shutil.copytree(pipeline / "unet", tmp_path / "bare" / "unet")
    assert "is not in a pipeline's folder, so nothing encodes --prompts" in says(folder=tmp_path / "bare" / "unet")
    with pytest.raises(InputError, match=r"give prompts with --prompts FILE.txt, one per line, or its text enc"):
        import_diffusers(pipeline, tmp_path / "out")

    changed("model_index.json", text_encoder_2=["transformers", "CLIPTextModelWithProjection"])
    assert "has a second text encoder, text_encoder_2 (CLIPTextModelWithProjection); possible: pipelines with" in says()
    changed("model_index.json")
    changed("text_encoder/config.json", architectures=["T5EncoderModel"])
    assert "the text encoder is a T5EncoderModel; possible: pipelines with one CLIPTextModel" in says()
    changed("text_encoder/config.json", hidden_size=16)
    assert "hidden_size is 16, and " in says()
    assert " reads text of 8 channels (cross_attention_dim)" in says()
    changed("text_encoder/config.json", vocab_size=50)
    assert "has the token 58, and its text encoder knows 50 (vocab_size)" in says()
    changed("text_encoder/config.json", intermediate_size=12)
    assert "the tensor for encoder.layers.0.mlp.fc1.bias is (16,); the CLIPTextModel of its config has (12,)" in says()
    changed("text_encoder/config.json")

    find = importlib.util.find_spec
    with monkeypatch.context() as absent:
        absent.setattr(
            importlib.util, "find_spec", lambda name, *more: None if name == "transformers" else find(name, *more)
        )
        assert f"encoding {prompts} needs transformers, which is not installed: pip install 'transformers>=" in says()
    (pipeline / "tokenizer" / "merges.txt").unlink()
    assert f"no merges.txt in {pipeline / 'tokenizer'}; copy" in says()
    file = pipeline / "text_encoder" / "model.safetensors"
    torch.save(load_file(file), pipeline / "text_encoder" / "pytorch_model.bin")
    file.unlink()
    refused = says()
    assert "pytorch_model.bin is a pickle, which may run code, and is not read; convert it: python -c" in refused
    exec(refused.partition('python -c "')[2].removesuffix('"'))
    assert file.is_file()
    assert not (tmp_path / "out").exists()


def test_networks_without_text_take_no_prompts(tmp_path: Path) -> None:
    config = {"_class_name": "UNet2DModel"}
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"--prompts is for networks that read text, and this one does not; leave"):
        import_diffusers(tmp_path / "unet", tmp_path / "out", prompts=tmp_path / "prompts.txt")
