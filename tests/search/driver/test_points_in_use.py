"""A front point taken into use: exported, registered and served, with the images of `stepfront sample` bit for bit."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import json
import os
import re
import runpy
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from packaging.requirements import Requirement
from PIL import Image
from safetensors.torch import load_file

from stepfront.errors import InputError
from stepfront.search.config import save_settings
from stepfront.search.driver.publish import log_to_mlflow, make_evaluator, sample_pixels
from stepfront.search.export.exported.sample import Point, UNet, png
from stepfront.search.export.mlflow_model import _requirement
from stepfront.search.export.network_files import write_network
from stepfront.search.export.program import export_point, shared_parts
from stepfront.search.export.registry import register_point
from stepfront.search.mlflow_runs.client import make_client
from stepfront.search.mlflow_runs.written import WrittenSearch
from stepfront.search.problem.load import load_problem_of_search
from stepfront.search.records.front import label_front
from stepfront.search.records.plan_rows import plan_of_row
from stepfront.search.records.run_directory import SETTINGS_FILE, find_search
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.points import pick_point
from stepfront.tables.schema import FRONT
from stepfront.tables.search_tables import read_snapshot
from stepfront.trainers.network_settings import NetworkSettings
from stepfront.trainers.networks.supernet import Supernet
from stepfront.trainers.validation import validate
from stepfront.trainers.variant import Size
from tests.search.cli.test_cli import call
from tests.search.conftest import copy_of_search, own_store, tiny_settings

IMAGES, SEED = 20, 3
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def published(searched: Path, tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """Return a finished search that is in MLflow."""
    place = tmp_path_factory.mktemp("published")
    directory = copy_of_search(searched, place)
    settings = tiny_settings(place, own_store(place, empty_store))
    save_settings(settings, directory / SETTINGS_FILE)
    assert log_to_mlflow(settings, directory, True)[0] == ""
    return directory


def sampled(directory: Path, point: str) -> np.ndarray:
    """Return what `stepfront sample` makes, [N, H, W, C]."""
    _, settings = find_search(directory)
    row = pick_point(read_snapshot(directory).front, point)
    evaluator = make_evaluator(load_problem_of_search(settings, directory), directory)
    return np.moveaxis(sample_pixels(evaluator, plan_of_row(row), IMAGES, SEED), 1, 3)


ALONE = """
import runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"search", "trainers", "dashboards", "benchmarks", "pandas", "ray", "mlflow"}:
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Refuse())
for folder in sys.argv[1:]:
    sys.argv = ["sample.py", "--images", "20", "--seed", "3", "--out", folder + ".npz"]
    runpy.run_path(folder + "/sample.py", run_name="__main__")
"""


def test_an_export_samples_the_same_images_without_this_package(published: Path, tmp_path: Path) -> None:
    folders = {point: tmp_path / point for point in ("best", "knee", "cheapest")}
    for point, out in folders.items():
        done = export_point(published, point, out)
        assert {path.name for path in out.iterdir()} == {
            "plan.json",
            "sample.py",
            *(network["file"] for network in done["networks"]),
        }
        row = pick_point(read_snapshot(published).front, point)
        assert {network["width"] for network in done["networks"]} == set(row["widths"]) - {0.0}
    command = [sys.executable, "-I", "-c", ALONE, *map(str, folders.values())]
    done_alone = subprocess.run(command, capture_output=True, text=True)
    assert done_alone.returncode == 0, done_alone.stderr
    for point, out in folders.items():
        with np.load(f"{out}.npz") as alone:
            np.testing.assert_array_equal(alone["images"], sampled(published, point))


@pytest.mark.parametrize(
    "imported",
    [
        {},
        {"norm_eps": 1e-6, "head_channels": 4, "halving": "end", "frequencies": "diffusers_shifted"},
        {"norm_eps": 1e-3, "head_channels": 8, "frequencies": "diffusers", "classes": 3},
        {"frequencies": "ddsm", "skips": "prefix"},
    ],
)
def test_the_program_computes_what_imported_networks_do_to_the_bit(tmp_path: Path, imported: dict[str, Any]) -> None:
    given = {"base": 16, "multipliers": [1, 2], "blocks": 1, "attention": [4], "widths": [0.5, 1.0]} | imported
    settings = validate(NetworkSettings, given)
    supernet = Supernet(settings, 1, 8).eval()
    for parameter in supernet.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    generator = torch.Generator().manual_seed(0)
    x, t = torch.randn(3, 1, 8, 8, generator=generator), torch.tensor([999.0, 500.0, 1.0])
    label = () if settings.classes is None else (torch.tensor([0, 2, 3]),)
    for width in settings.widths:
        network = supernet.subnet(width)
        written = write_network(network, (), Size(width), "program", tmp_path)
        program = UNet(
            load_file(tmp_path / written["file"]), written["groups"], json.loads(json.dumps(shared_parts(settings)))
        )
        with torch.inference_mode():
            assert torch.equal(program(x, t, *label), network(x, t, *label))


def test_an_export_refuses_weights_of_another_plan(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export_point(published, "best", tmp_path / "out")
    weights = sorted((tmp_path / "out").glob("width-*.safetensors"))[0]
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        run_program(tmp_path / "out", monkeypatch, "--images", "1", "--out", str(tmp_path / "no.npz"))
    assert ended.value.code == 2
    assert "does not belong to this plan" in capsys.readouterr().err
    assert not (tmp_path / "no.npz").exists()


def test_an_export_goes_over_an_export_and_never_among_other_files(published: Path, tmp_path: Path) -> None:
    export_point(published, "best", tmp_path / "out")
    done = export_point(published, "cheapest", tmp_path / "out")
    kept = {path.name for path in (tmp_path / "out").glob("width-*")}
    assert kept == {network["file"] for network in done["networks"]}
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files, such as thesis.txt; give a new folder"):
        export_point(published, "best", tmp_path / "out")


def run_program(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["sample.py", *words])
    runpy.run_path(str(folder / "sample.py"), run_name="__main__")


@pytest.fixture(scope="module")
def folder(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the exported knee."""
    out = tmp_path_factory.mktemp("exported") / "knee"
    export_point(published, "knee", out)
    return out


def test_the_program_writes_a_picture_where_the_name_ends_in_png(
    published: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sampled(published, "knee")[:, :, :, 0]
    one, several = tmp_path / "x.png", tmp_path / "grid.png"
    run_program(folder, monkeypatch, "--images", "1", "--seed", "3", "--device", "cpu", "--out", str(one))
    np.testing.assert_array_equal(np.asarray(Image.open(one)), expected[0])
    run_program(folder, monkeypatch, "--images", "11", "--seed", "3", "--out", str(several))
    picture = np.asarray(Image.open(several))
    assert picture.shape == (2 * 9 - 1, 8 * 9 - 1)  # 8 per row, each 8 pixels wide and one apart
    for i in range(11):
        top, left = i // 8 * 9, i % 8 * 9
        np.testing.assert_array_equal(picture[top : top + 8, left : left + 8], expected[i])
    assert {path.name for path in tmp_path.iterdir()} == {"x.png", "grid.png"}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_are_what_pillow_reads(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    read = np.asarray(Image.open(io.BytesIO(png(image))))
    np.testing.assert_array_equal(read, image[:, :, 0] if channels == 1 else image)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--device", "cuda:77"), "no device 'cuda:77' on this machine; possible: auto, cpu"),
        (("--device", "gpu"), "no device 'gpu' on this machine; possible: auto, cpu"),
        (("--seed", "1.5"), "argument --seed: invalid int value: '1.5'"),
        (("--seed", "-1"), "seed -1; possible: integers from 0 to 2**64 - 1"),
        (("--label", "2"), "these networks have no classes; leave the label out"),
        (("--images", "0"), "--images 0; possible: integers from 1 on"),
        (("--out", "x.jpg"), "--out x.jpg; possible: a name that ends in .npz or .png"),
        (("--out", "nowhere/x.png"), "No such file or directory: 'nowhere/x.png'"),
    ],
)
def test_wrong_input_to_the_program_ends_in_a_line(
    words: tuple[str, ...],
    says: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_program(folder, monkeypatch, "--images", "1", *words)
    said = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == 2
    assert says in said[-1]
    assert said[0].startswith(("error: ", "usage: "))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("seed", [1.5, 3.0, True, "3", None, -1, 2**64])
def test_a_seed_that_is_no_integer_is_refused(folder: Path, seed: Any) -> None:
    with pytest.raises(ValueError, match=rf"^seed {re.escape(repr(seed))}; possible: integers from 0 to 2\*\*64 - 1$"):
        Point(folder).sample([seed], [0])


LOAD = """
import sys, mlflow, numpy as np, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
images = model.predict(pd.DataFrame({"seed": [3] * 20}))
some = model.predict(pd.DataFrame({"seed": [3, 8, 3], "image": [7, 0, 2]}))
for wrong in ({"device": "cuda:77"}, {"encoding": "jpg"}):
    try:
        model.predict(pd.DataFrame({"seed": [3]}), params=wrong)
    except mlflow.exceptions.MlflowException as error:
        print(error)
assert not {"search", "trainers", "dashboards"} & set(sys.modules), "the model leans on this package"
np.savez(sys.argv[3], images=images, some=some)
"""


def test_a_registered_model_gives_the_same_images_in_a_fresh_process(published: Path, tmp_path: Path) -> None:
    done = register_point(published, "knee")
    _, settings = find_search(published)
    made = tmp_path / "made.npz"
    arguments = [str(settings.tracking.uri), f"models:/{done.model}@knee", str(made)]
    fresh = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, *arguments], capture_output=True, text=True, cwd=tmp_path, env=without_us()
    )
    assert fresh.returncode == 0, fresh.stderr
    assert "no device 'cuda:77' on this machine; possible: auto, cpu" in fresh.stdout
    assert "encoding 'jpg'; possible: pixels, png" in fresh.stdout
    expected = sampled(published, "knee")
    with np.load(made) as found:
        assert found["images"].dtype == np.uint8
        np.testing.assert_array_equal(found["images"], expected)
        np.testing.assert_array_equal(found["some"][[0, 2]], expected[[7, 2]])
        assert not np.array_equal(found["some"][1], expected[0])  # another seed, another image


def without_us() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def test_anybody_can_install_what_a_model_needs(published: Path) -> None:
    done = register_point(published, "knee")
    mlflow.set_tracking_uri(str(find_search(published)[1].tracking.uri))
    place = mlflow.artifacts.download_artifacts(f"models:/{done.model}/{done.version}/requirements.txt")
    required = [Requirement(line) for line in Path(place).read_text().splitlines()]
    assert {one.name for one in required} == {"mlflow", "torch", "numpy", "pandas", "safetensors"}
    for one in required:
        assert "+" not in str(one)
        assert one.specifier.contains(importlib.metadata.version(one.name))
    assert _requirement("torch", "2.13.0+cpu") == "torch>=2.13.0,<3"


def test_the_lines_in_docs_load_the_model_as_they_are_typed(published: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "for-analysts.md").read_text()
    lines = re.search(r"^    import mlflow, pandas as pd\n(    .*\n)+", page, re.MULTILINE)
    assert lines is not None
    register_point(published, "knee", "stepfront-digits")
    (tmp_path / "runs").symlink_to(find_search(published)[1].directory)
    code = textwrap.dedent(lines[0]) + "print(images.shape, images.dtype)\nprint(pictures[0][:8])\n"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=without_us()
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(64, 8, 8, 1) uint8\niVBORw0K\n"


def test_a_version_carries_where_it_comes_from(published: Path) -> None:
    done = register_point(published, "best")
    _, settings = find_search(published)
    facts = read_snapshot(published).facts
    version = make_client(settings.tracking.uri).get_model_version(done.model, done.version)
    assert version.tags["search_id"] == facts["search_id"]
    assert version.tags["supernet_digest"] == facts["supernet_digest"]
    assert version.tags["plan"] == done.point["plan"]
    again = register_point(published, "best")
    assert (again.version, again.new, again.moved) == (done.version, False, {})


def test_files_of_a_version_that_are_missing_are_stored_again(published: Path) -> None:
    done = register_point(published, "best", "damaged")
    client = make_client(find_search(published)[1].tracking.uri)
    model_id = client.get_model_version("damaged", done.version).tags["logged_model"]
    files = Path(client.get_logged_model(model_id).artifact_location.removeprefix("file://"))
    weights = next((files / "artifacts" / "point").glob("*.safetensors"))
    size = weights.stat().st_size
    weights.unlink()
    again = register_point(published, "best", "damaged")
    assert (again.version, again.new) == (done.version, False)
    assert weights.stat().st_size == size
    client.delete_logged_model(model_id)  # as `stepfront delete` does with the search's run
    assert register_point(published, "best", "damaged").new


@pytest.fixture
def training(published: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the run of a training of the supernet, in a store without logged models."""
    client, run_id = make_client(find_search(published)[1].tracking.uri), WrittenSearch.read(published).run_id
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment]):
        client.delete_logged_model(model.model_id)
    training = str(client.create_run(experiment).info.run_id)
    monkeypatch.setattr("stepfront.search.export.registry._Registry._training_run", lambda registry: training)
    return training


def shown_in(client: MlflowClient, run_id: str) -> set[str]:
    return {one.model_id for one in client.get_run(run_id).outputs.model_outputs}


def test_a_training_run_of_somebody_else_does_not_stop_a_registration(
    published: Path, training: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client, run_id = make_client(find_search(published)[1].tracking.uri), WrittenSearch.read(published).run_id
    log = MlflowClient.log_outputs

    def refuse(self: MlflowClient, run_id: str, models: list[Any]) -> None:
        if run_id == training:
            raise MlflowException("Permission denied", PERMISSION_DENIED)
        log(self, run_id, models)

    with monkeypatch.context() as others:
        others.setattr(MlflowClient, "log_outputs", refuse)
        done = register_point(published, "best", "others")
        code, said, _ = call(monkeypatch, capsys, "register", str(published), "--point", "best", "--name", "others")
    assert (done.new, done.refused) == (True, (training,))
    assert done.moved["best"] == (None, done.version)
    assert code == 0
    assert f"the run {training} does not show it: no permission to write to it" in said
    model_id = client.get_model_version("others", done.version).tags["logged_model"]
    assert model_id in shown_in(client, run_id)
    again = register_point(published, "best", "others")
    assert (again.new, again.refused) == (False, ())
    assert model_id in shown_in(client, training)


def test_a_killed_registration_is_shown_by_the_next(
    published: Path, training: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, run_id = make_client(find_search(published)[1].tracking.uri), WrittenSearch.read(published).run_id

    def kill(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr("stepfront.search.export.registry.show_in_run", kill)
        with pytest.raises(KeyboardInterrupt):
            register_point(published, "best", "killed")
    done = register_point(published, "best", "killed")
    assert not done.new
    model_id = client.get_model_version("killed", done.version).tags["logged_model"]
    assert model_id in shown_in(client, run_id) & shown_in(client, training)
    shown = json.loads(client.get_logged_model(model_id).tags["mlflow.modelVersions"])
    assert {"name": "killed", "version": done.version} in shown


def test_versions_of_two_names_share_files_that_never_change(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = register_point(published, "best", "first")
    client = make_client(find_search(published)[1].tracking.uri)
    model_id = client.get_model_version("first", first.version).tags["logged_model"]
    files = Path(client.get_logged_model(model_id).artifact_location.removeprefix("file://"))
    held = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    monkeypatch.setattr(
        "stepfront.search.export.mlflow_model._requirement", lambda name, version: f"{name}>={version}1"
    )
    second = register_point(published, "best", "second")
    assert second.new
    assert client.get_model_version("second", second.version).tags["logged_model"] == model_id
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == held

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    weights = next((files / "artifacts" / "point").glob("*.safetensors"))
    weights.unlink()
    for name in ("first", "third"):
        with monkeypatch.context() as disk:
            disk.setattr(MlflowClient, "log_model_artifacts", full)
            with pytest.raises(InputError, match="No space left"):
                register_point(published, "best", name)
        assert {path for path in files.rglob("*") if path.is_file()} == held.keys() - {weights}
    assert register_point(published, "best", "third").new
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == held


def test_a_version_of_before_there_were_logged_models_keeps_its_files(published: Path) -> None:
    client, run_id = make_client(find_search(published)[1].tracking.uri), WrittenSearch.read(published).run_id
    digest = client.get_model_version("new", register_point(published, "best", "new").version).tags["digest"]
    client.create_registered_model("old")
    files = f"{client.get_run(run_id).info.artifact_uri}/models/trial-7"
    client.create_model_version("old", files, run_id, tags={"digest": digest})
    assert not register_point(published, "best", "old").new
    assert (Path(files.removeprefix("file://")) / "MLmodel").is_file()


def test_aliases_follow_the_front(published: Path) -> None:
    client = make_client(find_search(published)[1].tracking.uri)
    register_point(published, "best", "followed")
    before = client.get_registered_model("followed").aliases
    assert "best" in before
    path = published / FRONT
    whole = read_table(path)
    other = whole.iloc[[i for i, label in enumerate(whole["label"]) if "best" not in label]]
    try:
        write_table(label_front(other.reset_index(drop=True), "fid", "gflops"), path)
        done = register_point(published, "cheapest", "followed")
        assert "best" in done.moved
        assert done.moved["best"][0] == str(before["best"])
        now = client.get_model_version_by_alias("followed", "best")
        assert int(now.tags["trial"]) == int(other.loc[other["fid"].idxmin(), "trial"])
    finally:
        write_table(whole, path)


def test_what_can_not_be_registered_is_said_in_a_line(published: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'a/b' cannot be the name of a model"):
        register_point(published, "best", "a/b")
    state = published / "mlflow.json"
    kept = state.read_bytes()
    state.unlink()
    try:
        with pytest.raises(InputError, match="is not in MLflow yet; run `stepfront sync"):
            register_point(published, "best")
    finally:
        state.write_bytes(kept)


@pytest.fixture
def served(published: Path, tmp_path: Path) -> Iterator[str]:
    """`mlflow models serve` on the registered knee, without a network."""
    done = register_point(published, "knee")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    scripts = str(Path(sys.executable).parent)
    environment = without_us() | {"MLFLOW_TRACKING_URI": str(find_search(published)[1].tracking.uri)}
    environment |= {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{done.model}@knee"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with open(tmp_path / "serve.log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=tmp_path)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5)
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "serve.log").read_text()
                time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        process.terminate()
        process.wait()


def test_mlflow_serves_the_model(served: str, published: Path) -> None:
    def ask(content: dict[str, object]) -> np.ndarray:
        body = json.dumps(content).encode()
        request = urllib.request.Request(served, body, {"Content-Type": "application/json"})
        return np.array(json.load(urllib.request.urlopen(request, timeout=60))["predictions"])

    expected = sampled(published, "knee")
    np.testing.assert_array_equal(ask({"dataframe_split": {"columns": ["seed"], "data": [[3]] * 20}}), expected)
    records = [{"seed": 3, "image": 11}, {"seed": 3, "image": 4}]
    np.testing.assert_array_equal(ask({"dataframe_records": records}), expected[[11, 4]])
    (text,) = ask({"dataframe_records": [records[0]], "params": {"encoding": "png", "device": "cpu"}})
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    np.testing.assert_array_equal(picture, expected[11, :, :, 0])
    for wrong, says in WRONG.items():
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask({"dataframe_records": [json.loads(wrong)]})
        assert refused.value.code == 400
        assert says in json.load(refused.value)["message"]


WRONG = {
    '{"sed": 3}': "Model is missing inputs ['seed']",
    '{"seed": 1.5}': "seed 1.5; possible: integers from 0",
    '{"seed": "3"}': "seed '3'; possible: integers from 0",
    '{"seed": 3, "image": 0.5}': "image 0.5; possible: integers from 0",
}
