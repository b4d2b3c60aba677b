"""The counter of bytes and the ways compared; seconds are never asserted."""

import gc

import pytest
import torch
from matplotlib import pyplot as plt

from corrlib import charts, coords, costs, matching
from corrlib.coarse_to_fine import CoarseToFine
from corrlib.encoder import PixelEncoder


def test_seconds_takes_turns():
    turns = []
    took = costs.seconds({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, repeats=2)
    assert turns == ["a", "b"] * 3 and set(took) == {"a", "b"} and min(took.values()) >= 0
    turns.clear()
    assert costs.seconds({"a": lambda: turns.append("a")}, repeats=0)["a"] >= 0 and turns == ["a"]
    assert costs.seconds({"a": lambda: turns.append("a")}, repeats=3, long=0.0)["a"] >= 0 and turns == ["a", "a"]


def test_peak_bytes_by_hand():
    x = torch.ones(1000, requires_grad=True)
    assert costs.peak_bytes(lambda: (x + 1) + (x + 2)) == 3 * 4000
    assert costs.peak_bytes(lambda: [(x + i).sum() for i in range(9)]) < 4000 + 2000 + 9 * 8
    assert costs.peak_bytes(lambda: x[:10].reshape(2, 5).mT) == 0  # views
    y = torch.ones(1000)
    assert costs.peak_bytes(lambda: y.add_(1).mul_(2)) == 0
    assert costs.peak_bytes(lambda: y.double()) == 8000
    squared = costs.peak_bytes(lambda: torch.autograd.grad((x * x * x).sum(), x))
    gc.collect()
    assert squared == costs.peak_bytes(lambda: torch.autograd.grad((x * x * x).sum(), x)) >= 3 * 4000


def test_machine():
    assert costs.matmul_rate(1) > 1e8 and costs.bandwidth(1) > 1e8


def test_ways_agree_with_what_they_replace():
    how = CoarseToFine()
    made = costs.problem((74, 106), 9, channels=8)
    assert made.key.fine.shape == (1, 8, 37, 53) and made.key.coarse.shape == (1, 16, 10, 14)
    calls = costs.point_methods(made, how)
    assert list(calls) == ["dense", "streamed", "coarse_to_fine"]
    assert torch.allclose(calls["dense"](), calls["streamed"](), atol=1e-4)
    cells = coords.to_cells(made.xy, costs.LATTICES[1])[None]
    naive = costs.naive_windows(made.query.fine, made.key.fine, cells.round(), 2)
    ours, _ = matching.window_correlation(made.query.fine, made.key.fine, cells, 2)
    inside = ours.isfinite()
    assert torch.allclose(ours[inside], naive[inside], atol=1e-5)
    naive = costs.naive_local(made.field.fine, made.key.fine, 2).unflatten(1, (37, 53))
    ours = matching.local_correlation(made.field.fine, made.key.fine, 2)
    inside = ours.isfinite()
    assert torch.allclose(ours[inside], naive[inside], atol=1e-5)
    assert costs.rivals(made)["dis"]().shape == (74, 106, 2)
    assert len(costs.rivals(made)["lk"]()[0]) == 9


def test_too_large_a_matrix_is_not_tried(monkeypatch):
    monkeypatch.setattr(costs, "MOST_BYTES", 1000)
    assert "dense" not in costs.point_methods(costs.problem((74, 106), 9, channels=8), CoarseToFine())


def test_the_floor_by_hand():
    made, how = costs.problem((74, 106), 9, channels=8), CoarseToFine(candidates=2, radius=1, readout=0)
    fast, slow = costs.floor_seconds(made, how, 1.0, 1e9), costs.floor_seconds(made, how, 1e12, 1.0)
    assert fast["streamed"] == 2 * 9 * 37 * 53 * 8 and slow["streamed"] == 4 * 37 * 53 * 8
    assert fast["coarse_to_fine"] == 2 * 9 * (140 * 16 + 19 * 8) and slow["coarse_to_fine"] == 4 * (140 * 16 + 171 * 8)


def test_a_sweep_and_its_figure():
    problems = [costs.problem((74, 106), n, channels=8) for n in (2, 9)]
    rows = costs.sweep(problems, CoarseToFine(), 1, 1e9, 1e9)
    assert all(set(row["seconds"]) == set(charts.WAYS) for row in rows)
    assert rows[0]["bytes"]["dense"] < rows[1]["bytes"]["dense"]
    fig, axes = plt.subplots(1, 2)
    charts.show_costs(axes[0], [2, 9], rows, "seconds")
    charts.show_costs(axes[1], [2, 9], rows, "bytes")
    assert [len(ax.lines) for ax in axes] == [7, 3] and axes[1].get_ylabel() == "peak memory, MiB"
    fig.canvas.draw()
    plt.close(fig)


def test_growth():
    assert costs.growth([1, 2, 4], [3, 6, 12]) == pytest.approx(1)
    assert costs.growth([1, 10], [1, 100]) == pytest.approx(2)


def test_ratios_memory_and_accuracy():
    how = CoarseToFine(candidates=1)
    took = costs.ratios((74, 106), how, 1, 0)
    assert len(took) == 5 and all(min(pair.values()) > 0 for pair in took.values())
    memory = costs.field_memory((74, 106), 0.07)
    assert 0 < memory["forward"] <= memory["forward_backward"] < 16 * 2**20
    torch.manual_seed(0)
    scores = costs.pair_accuracy(PixelEncoder(8).eval(), 1, [1, 3], {"one": how})
    assert set(scores) == {"dense", "field", "one"} and 0 < scores["one"]["delta_1"] <= scores["one"]["delta_avg"] < 1
