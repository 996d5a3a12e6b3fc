"""Check that the front of an earlier search is mapped to this one, and what is learned from its trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stepfront.errors import InputError
from stepfront.search.algorithm.proxies import rank_correlation
from stepfront.search.algorithm.surrogate import LEAST_TRIALS, PlanFeatures
from stepfront.search.earlier.earlier_models import earlier_models, front_levels, what_is_taught
from stepfront.search.earlier.mapped_plans import mapped_levels
from stepfront.search.earlier.usable_plans import exact_levels, left_out
from stepfront.search.genomes.encodings import Encoding, EvenStages, Stages, Steps
from stepfront.search.genomes.sampler_genes import SamplerGenes
from stepfront.search.initial_plans.plan_kinds import make_initial_plans
from stepfront.tables.parquet import read_table, write_table
from stepfront.tables.schema import FRONT, TABLES, TRIALS
from stepfront.trainers.variant import has_marks, parse_variants, runs_text
from tests.search.initial_plans.test_plan_kinds import MACS, WIDTHS, source


def with_every_column(table: pd.DataFrame, file: str) -> pd.DataFrame:
    if "plan" not in table:
        table = table.assign(plan=[runs_text(widths) for widths in table["widths"]])
    nothing: dict[str, Any] = {"integer": 0, "number": 0.0, "truth": False, "integers": [], "numbers": []}
    needed = [c for c in TABLES[file].columns if c.name not in table and not c.nullable and c.kind in nothing]
    filled = table.assign(**{column.name: [nothing[column.kind]] * len(table) for column in needed})
    return filled.reindex(columns=TABLES[file].names)


def test_an_earlier_front_keeps_its_numbers_of_steps_where_any_number_may_be_taken() -> None:
    encoding = EvenStages(20, WIDTHS, 20)
    assert encoding.step_widths(mapped_levels((0.5,) * 5 + (1.0,) * 5, encoding)) == (0.5,) * 5 + (1.0,) * 5
    assert encoding.step_widths(mapped_levels((0.5,) * 25 + (1.0,) * 25, encoding)) == (0.5,) * 10 + (1.0,) * 10


def test_an_earlier_front_is_mapped_to_other_widths_and_steps(tmp_path: Path) -> None:
    widths = [[0.5] * 6 + [1.0] * 4, [1.0] * 10]
    write_table(with_every_column(pd.DataFrame({"widths": widths}), FRONT), tmp_path / FRONT)
    encoding = Stages(20, (0.25, 0.625, 1.0), False, 10)
    plans = make_initial_plans({f"front:{tmp_path}": 5}, source(encoding))
    assert [p.genome for p in plans] == ["1111112222", "2222222222"]
    assert {p.origin for p in plans} == {f"front:{tmp_path}"}


STEPS_OF_MARKS = Steps(6, (0.5, 1.0, 1.0), False, ("", "r", ""))


def test_plans_with_marks_are_taken_where_the_encoding_has_exactly_them() -> None:
    steps = parse_variants("2x1.00 2x1.00r 1x0.50 1x1.00")
    assert STEPS_OF_MARKS.pack(exact_levels(steps, STEPS_OF_MARKS)) == "221102"
    assert exact_levels(parse_variants("1x1.00 5x1.00u"), STEPS_OF_MARKS) is None
    assert exact_levels(parse_variants("1x0.50 5x0.50r"), STEPS_OF_MARKS) is None
    assert exact_levels(parse_variants("1x1.00 4x1.00r"), STEPS_OF_MARKS) is None, "five steps"
    stages = Stages(6, (0.5, 1.0, 1.0), False, 3, ("", "r", ""))
    assert exact_levels(steps, stages) is None, "the last stage runs two variants"
    assert exact_levels(parse_variants("2x1.00 2x1.00r 2x0.50"), stages).tolist() == [2, 1, 0]
    assert exact_levels(parse_variants("1x1.00 5x1.00r"), stages) is None, "within a stage"
    even = EvenStages(6, (0.5, 1.0, 1.0), 6, ("", "r", ""))
    for text in ("1x1.00 2x1.00r", "1x1.00 1x1.00r 1x0.50 3x1.00", "1x0.50"):
        levels = exact_levels(parse_variants(text), even)
        assert even.step_variants(levels) == parse_variants(text)
    genes = SamplerGenes(even, ("ddim", "dpmpp_2m"), ("trailing", "leading"))
    assert np.array_equal(exact_levels(steps, genes), exact_levels(steps, even))


def test_an_earlier_search_without_a_model_is_said_with_its_reason(tmp_path: Path) -> None:
    def taught(plans: int, proxy: str = "model") -> tuple[str, int]:
        widths = [[0.5] * 6] * plans + [[1.0] * 5] * 3  # those of fewer steps can't be used
        table = with_every_column(pd.DataFrame({"widths": widths}), TRIALS)
        write_table(table.assign(state="complete", fid=1.0, trial=range(len(table))), tmp_path / TRIALS)
        (one,) = what_is_taught({"uniform": 2, f"front:{tmp_path}": 8}, Steps(6, (0.5, 1.0), False), proxy).values()
        return one.sentence(f"front:{tmp_path}"), one.usable

    line = f"12 of the 15 trials of {tmp_path} can teach the model of FID"
    assert taught(LEAST_TRIALS) == (line, 12)
    assert taught(LEAST_TRIALS, "gap")[0] == f"{line}; its front alone is used, for screen.proxy=gap uses no model"
    assert taught(LEAST_TRIALS - 1)[0].endswith("; its front alone is used, for no model: 11 of 12 needed")


def test_what_of_an_earlier_search_is_left_out_is_said_in_one_line(tmp_path: Path) -> None:
    plans = ["6x0.50", "1x1.00 5x1.00r", "1x1.00 5x1.00u", "6x1.00"]
    table = pd.DataFrame({"plan": plans, "widths": [[0.5] * 6, *[[1.0] * 6] * 3]})
    write_table(with_every_column(table, FRONT), tmp_path / FRONT)
    write_table(with_every_column(table.assign(state="complete", fid=1.0), TRIALS), tmp_path / TRIALS)
    name = f"front:{tmp_path}"
    taken = front_levels(tmp_path, 9, STEPS_OF_MARKS)
    assert [STEPS_OF_MARKS.pack(levels) for levels in taken] == ["000000", "211111", "222222"]
    assert left_out({"uniform": 2, name: 8}, STEPS_OF_MARKS, {}) == [
        f"of 4 front points of {tmp_path}, 3 can be initial plans here, and of its 4 trials, 3 can teach the model of "
        "FID; plans left out: 1, with steps that this space lacks (1.00u)"
    ]
    (line,) = left_out({name: 8}, Stages(6, (0.5, 1.0), False, 6), {})
    assert "2 can be initial plans" in line
    assert line.endswith("plans left out: 2, with steps that this space lacks (1.00r, 1.00u)")
    (line,) = left_out({name: 8}, Stages(6, (1.0, 1.0, 1.0), False, 2, ("r", "u", "")), {})
    assert line.endswith("plans left out: 2, with marks at other steps")
    assert left_out({name: 0, "uniform": 4}, STEPS_OF_MARKS, {}) == []
    write_table(with_every_column(table[:1], FRONT), tmp_path / FRONT)
    write_table(with_every_column(table[:1].assign(state="complete", fid=1.0), TRIALS), tmp_path / TRIALS)
    assert left_out({name: 8}, Stages(6, (0.5, 1.0), False, 6), {}) == []


def test_plans_with_marks_are_left_out(tmp_path: Path) -> None:
    plans, encoding = ["4x1.00u 6x1.00", "10x1.00", "1x0.50 9x0.50r"], Stages(10, WIDTHS, False, 10)
    widths = [[1.0] * 10, [1.0] * 10, [0.5] * 10]
    write_table(with_every_column(pd.DataFrame({"plan": plans, "widths": widths}), FRONT), tmp_path / FRONT)
    assert [p.genome for p in make_initial_plans({f"front:{tmp_path}": 5}, source(encoding))] == ["3" * 10]
    write_table(with_every_column(pd.DataFrame({"plan": plans[:1], "widths": widths[:1]}), FRONT), tmp_path / FRONT)
    assert make_initial_plans({f"front:{tmp_path}": 5}, source(encoding)) == []
    trials = pd.DataFrame({"state": "complete", "plan": plans * 8, "widths": widths * 8, "fid": range(1, 25)})
    write_table(with_every_column(trials, TRIALS), tmp_path / TRIALS)
    assert earlier_models({f"front:{tmp_path}": 5}, encoding, source(encoding).gap()) == {}  # 8 of 24 are left


def write_search(place: Path, plans: list[str]) -> None:
    widths = [[variant.width for variant in parse_variants(plan)] for plan in plans]
    table = pd.DataFrame({"plan": plans, "widths": widths, "fid": np.arange(1.0, len(plans) + 1)})
    write_table(with_every_column(table, FRONT), place / FRONT)
    write_table(with_every_column(table.assign(state="complete"), TRIALS), place / TRIALS)


@pytest.mark.parametrize("encoding", [Stages(6, (0.5, 1.0), False, 6), EvenStages(6, (0.5, 1.0), 6)])
def test_plans_with_depths_are_no_plans_of_widths(tmp_path: Path, encoding: Encoding) -> None:
    write_search(tmp_path, ["6x0.50d1", "3x0.50d1 3x1.00", "6x0.50", "6x1.00d1u"])
    (levels,) = front_levels(tmp_path, 9, encoding)
    assert encoding.step_variants(levels) == parse_variants("6x0.50")
    (line,) = left_out({f"front:{tmp_path}": 8}, encoding, {})
    assert "of 4 front points" in line
    assert "of its 4 trials, 1 can teach" in line
    assert line.endswith("plans left out: 3, with steps that this space lacks (0.50d1, 1.00d1u)")
    write_search(tmp_path, ["6x0.50d1", "3x0.50d1 3x1.00"] * LEAST_TRIALS + ["6x0.50", "6x1.00"])
    gap = np.linspace(1, 0, 12).reshape(6, 2)
    assert earlier_models({f"front:{tmp_path}": 8}, encoding, gap) == {}, "two trials are of widths"


def test_plans_with_depths_are_exact_where_the_space_has_them(tmp_path: Path) -> None:
    plans = ["6x0.50d1", "3x0.50d1 3x1.00", "6x0.50", "5x0.50 1x1.00", "6x1.00d1"]
    write_search(tmp_path, plans * 4)
    encoding = Steps(6, (0.5, 0.5, 1.0), False, ("d1", "", ""))
    runs = [runs_text(encoding.step_variants(levels)) for levels in front_levels(tmp_path, 99, encoding)]
    assert runs == plans[:4] * 4
    (line,) = left_out({f"front:{tmp_path}": 8}, encoding, {})
    assert line.endswith("plans left out: 1, with steps that this space lacks (1.00d1)")
    # The worst and best of these FIDs are those of 0.5d1 and 1.0: the model has to tell 0.5d1 from 0.5.
    fids = {"6x0.50d1": 9.0, "3x0.50d1 3x1.00": 6.0, "6x0.50": 3.0, "5x0.50 1x1.00": 2.0, "6x1.00d1": 1.0}
    trials = read_table(tmp_path / TRIALS)
    write_table(trials.assign(fid=trials["plan"].map(fids)), tmp_path / TRIALS)
    gap = np.linspace(1, 0, 18).reshape(6, 3)
    (model,) = earlier_models({f"front:{tmp_path}": 8}, encoding, gap).values()
    shallow, full = (exact_levels(parse_variants(text), encoding) for text in ("6x0.50d1", "6x0.50"))
    worse, better = model([shallow, full])
    assert worse > better + 1


@pytest.mark.parametrize("text", ["6x0.50d1", "3xskip 1x1.00 2x1.00r", "6x1.00u", "1x1.00d12u", "1x1.00 1x1.00ru"])
def test_every_mark_is_one(text: str) -> None:
    assert has_marks(text)
    assert not has_marks("3xskip 2x0.50 1x1.00")


def test_a_missing_front_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no front at"):
        make_initial_plans({f"front:{tmp_path}": 5}, source(Stages(20, WIDTHS, False, 10)))


def test_an_earlier_search_predicts_plans_that_it_never_evaluated(tmp_path: Path) -> None:
    here = source(Stages(20, WIDTHS, False, 10))
    gap = here.gap()
    rng = np.random.default_rng(5)
    worth = np.linspace(3, 0.2, 10)  # early stages matter there: not what the gap says

    def fid(levels: np.ndarray) -> float:
        return float(1 + ((3 - levels) * worth).sum())

    # The earlier search had other steps and widths.
    there = Stages(40, (0.25, 0.5, 0.75, 1.0), False, 10)
    plans = rng.integers(0, 4, (40, 10))
    rows = [{"state": "complete", "widths": list(there.step_widths(one)), "fid": fid(one)} for one in plans]
    table = pd.DataFrame(rows).assign(gflops=[float(MACS[one].sum()) for one in plans])
    table = with_every_column(table, TRIALS)
    write_table(table, tmp_path / TRIALS)
    (model,) = earlier_models({"uniform": 4, f"front:{tmp_path}": 8}, here.encoding, gap).values()
    unseen = rng.integers(0, 4, (100, 10))
    predicted, true = model(list(unseen)), np.array([fid(one) for one in unseen])
    assert rank_correlation(predicted, true) > 0.8
    features = PlanFeatures(here.encoding, gap, (model,))
    assert np.array_equal(features(unseen)[:, -1], model(list(unseen)))
    write_table(table.iloc[:5], tmp_path / TRIALS)
    assert earlier_models({f"front:{tmp_path}": 8}, here.encoding, gap) == {}
    assert earlier_models({"uniform": 4}, here.encoding, gap) == {}
