"""`stepfront import` and `stepfront export`, from the command line to files that the other verbs continue with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from stepfront.files import write_json
from stepfront.search.config import load_settings, save_settings
from stepfront.search.problem.load import load_problem
from stepfront.search.records.run_directory import FACTS_FILE, SETTINGS_FILE
from stepfront.tables.parquet import write_table
from stepfront.tables.schema import FRONT, NOT_CONFIRMED, PROGRESS, TRIALS
from stepfront.trainers.inference.cost import count_width
from stepfront.trainers.networks.card import read_card
from stepfront.trainers.networks.supernet_files import load_supernet
from tests.search.cli.test_cli import call
from tests.search.conftest import tiny_settings
from tests.trainers.interop.ddsm_network import ddsm_forward, random_weights

ROOT = Path(__file__).resolve().parents[3]
VERBS = (("import", "ddsm"), ("import", "diffusers"))


@pytest.mark.parametrize("verb", [*VERBS, ("import",), ("export",)])
def test_every_verb_has_help_with_an_example(verb: tuple[str, ...], monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    code, said, _ = call(monkeypatch, capsys, *verb, "--help")
    assert code == 0
    assert "Example:" in said


def test_diffusers_is_never_imported_at_the_start() -> None:
    code = (
        "import sys, stepfront.search.cli.main, stepfront.search.driver.search;"
        "import stepfront.trainers.interop.unet2d, stepfront.search.export.pipeline_folder;"
        "print('diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


WRONG_EXPORT = {
    "family": (("--as", "dit"), "unet can't be a DiTTransformer2DModel; possible for it: --as unet2d or pipeline"),
    "form": (("--as", "jpg"), "cannot export as 'jpg'; possible: program, torch-export, onnx, pipeline, unet2d"),
    "point": (("--as", "unet2d", "--point", "best"), "--as unet2d exports full width alone, and no front point; leave"),
    "licence": (("--license", "mit"), "--license mit is for the model card of --as pipeline; --as program has none"),
    "norms": (("--as", "unet2d"), "the group norms of this network have 2, 4, 6, 8 groups; a UNet2DModel has one"),
}


@pytest.mark.parametrize("name", WRONG_EXPORT)
def test_a_wrong_export_is_one_line(name: str, trained: Path, monkeypatch, capsys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words, says = WRONG_EXPORT[name]
    out = tmp_path / "out"
    code, _, error = call(monkeypatch, capsys, "export", str(trained / "tiny"), "--out", str(out), *words)
    assert (code, error.count("\n")) == (2, 1)
    assert says in error
    assert not out.exists()


def test_a_ddsm_checkpoint_is_ready_to_be_searched(monkeypatch, capsys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    weights = random_weights(64, [1, 2], 1, {1})
    torch.save({"ema_model": weights, "step": 3}, tmp_path / "ckpt.pt")
    out = tmp_path / "runs" / "my ddsm" / "supernet"
    words = ("--out", str(out), "--resolution", "8", "--groups", "16", "--widths", "0.25,0.5,1", "--betas", "2e-4,0.03")
    code, said, error = call(monkeypatch, capsys, "import", "ddsm", str(tmp_path / "ckpt.pt"), *words)
    assert (code, error) == (0, "")
    assert f"stepfront search {out / 'config.yaml'}" in said
    assert f"{count_width(read_card(out).network, 3, 8, 1.0).macs / 1e6:.1f} MMACs" in said
    edits = ["data.format=digits", "data.path=null", "features.name=random", "features.examine=skip", "data.limit=100"]
    settings = load_settings(out / "config.yaml", edits)
    assert (settings.name, settings.diffusion.beta_last) == ("my-ddsm", 0.03)
    problem = load_problem(settings)  # network, weights and any data fit together
    assert problem.card.network.widths == (0.25, 0.5, 1.0)
    supernet, _ = load_supernet(out)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([5, 700])
    with torch.no_grad():
        expected = ddsm_forward(weights, x, t, 0.5, 16)
        torch.testing.assert_close(supernet(x, t.float(), 0.5), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("classes", [None, 10])
def test_a_unet2dmodel_is_ready_to_be_trained_and_comes_back(  # type: ignore[no-untyped-def]
    monkeypatch, capsys, tmp_path: Path, classes: int | None
) -> None:
    diffusers = pytest.importorskip("diffusers")
    kinds = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    channels = {"in_channels": 1, "out_channels": 1, "block_out_channels": (16, 32), "num_class_embeds": classes}
    network = diffusers.UNet2DModel(sample_size=8, norm_num_groups=4, layers_per_block=1, **kinds, **channels)
    network.save_pretrained(tmp_path / "in")
    start = tmp_path / "runs" / "net" / "start"
    words = ["import", "diffusers", str(tmp_path / "in"), "--out", str(start)]
    if classes:
        code, _, error = call(monkeypatch, capsys, *words)
        assert (code, error.count("\n")) == (2, 1)
        assert "give --null-class last or --null-class none" in error
        words += ["--null-class", "none"]
    code, said, _ = call(monkeypatch, capsys, *words)
    assert code == 0
    assert f"stepfront train {start / 'config.yaml'}" in said
    edits = ("data.format=digits", "data.path=null", "training.steps=2", "training.batch=8", "data.limit=100")
    edits += ("training.warmup=1", "features.name=random", "features.examine=skip", f"directory={tmp_path / 'runs'}")
    words = [word for edit in edits for word in ("--set", edit)]
    assert call(monkeypatch, capsys, "train", str(start / "config.yaml"), *words)[0] == 0
    trained = tmp_path / "runs" / "net" / "supernet"
    assert read_card(trained).network == read_card(start).network
    code, _, _ = call(monkeypatch, capsys, "export", "--as", "unet2d", str(trained), "--out", str(tmp_path / "back"))
    assert code == 0
    back, (supernet, _) = diffusers.UNet2DModel.from_pretrained(tmp_path / "back"), load_supernet(trained)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([5, 700])
    label = None if classes is None else torch.tensor([3, 10])  # a class, and the null class that was trained here
    with torch.no_grad():
        expected = supernet(x, t.float(), 1.0, label)
        torch.testing.assert_close(back(x, t, class_labels=label).sample, expected, atol=1e-5, rtol=0)


WRONG = {
    "widths": (("--widths", "half"), "--widths 'half'; widths look like 0.25,0.5,0.75,1.0"),
    "betas": (("--betas", "0.1"), "--betas '0.1'; betas look like 1e-4,0.02"),
    "impossible beta": (("--betas", "0.1,3"), "beta_last: input should be less than 1 (given: 3.0)"),
    "absent": ((), "no checkpoint at absent.pt"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line(name: str, monkeypatch, capsys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words, says = WRONG[name]
    code, _, error = call(monkeypatch, capsys, "import", "ddsm", "absent.pt", "--out", str(tmp_path / "x"), *words)
    assert (code, error.count("\n")) == (2, 1)
    assert says in error


def test_a_front_point_becomes_a_pipeline(trained: Path, monkeypatch, capsys, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    settings = tiny_settings(trained)
    search = tmp_path / "search"
    search.mkdir()
    save_settings(settings, search / SETTINGS_FILE)
    digest = read_card(settings.supernet_directory).digest
    write_json(search / FACTS_FILE, {"supernet_digest": digest, "name": "tiny", "dataset": "digits"})
    row = {"trial": 4, "label": "knee", "plan": "1x0.50 1x1.00", "fid": 9.0, "gflops": 1.0, "solver": "ddim"}
    row |= {"times": [999.0, 499.0], "widths": [0.5, 1.0], "generation": 0, "origin": "cuts", "latency_ms": 1.0}
    row |= {"state": "complete", "evaluation": 1, "hypervolume": 1.0, "network_gflops": 8.0}
    row |= {"features": "classifier", "images": 32, "learnt": ""} | NOT_CONFIRMED
    front = pd.DataFrame([row])
    for name in (TRIALS, PROGRESS, FRONT):
        write_table(front, search / name)
    code, said, _ = call(
        monkeypatch,
        capsys,
        "export",
        "--as",
        "pipeline",
        "--license",
        "apache-2.0",
        str(search),
        "--out",
        str(tmp_path / "knee"),
    )
    assert code == 0
    assert "trial 4: 1x0.50 1x1.00" in said
    kept = json.loads((tmp_path / "knee" / "scheduler" / "scheduler_config.json").read_text())
    assert [(step["time"], step["width"]) for step in kept["steps"]] == [(999.0, 0.5), (499.0, 1.0)]
    assert "license: apache-2.0" in (tmp_path / "knee" / "README.md").read_text()
    write_json(search / FACTS_FILE, {"supernet_digest": "another"})
    code, _, error = call(
        monkeypatch, capsys, "export", "--as", "pipeline", str(search), "--out", str(tmp_path / "other")
    )
    assert code == 2
    assert "used another supernet than the one in" in error


@pytest.mark.parametrize(("name", "resolution"), [("cifar10", 32), ("imagenet64", 64)])
def test_the_settings_files_say_what_their_training_costs(name: str, resolution: int) -> None:
    path = ROOT / "configs" / f"{name}.yaml"
    settings = load_settings(path)
    macs = [count_width(settings.network, 3, resolution, width).macs for width in settings.network.widths]
    images = settings.training.steps * settings.training.batch
    flops = 2 * 3 * images * (macs[-1] + macs[0] + sum(macs[1:-1]) / 2)  # backward is twice forward
    assert f"{flops:.1e}".replace("e+", "e") in path.read_text()
    assert f"{flops / 50e12 / 3600:.0f} hours" in path.read_text().replace("\n# ", " ")
