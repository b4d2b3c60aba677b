"""The method's step: each loss falls on one batch when it is minimised, and does not when it is not."""

import inspect
from dataclasses import asdict, replace

import pytest
import torch

from corrlib import alignment, training, training_data, training_step
from corrlib.encoder import PixelEncoder
from corrlib.losses import LossWeights
from corrlib.training import TrainConfig
from corrlib.training_step import train_step

TINY = TrainConfig(
    steps=6, clips=2, frames=2, size=48, points=40, width=8, textures=4, learning_rate=5e-3, appearance=0.0,
    real_videos="data/samples", real_clips=2, own_radius=3, drop_channels=True,
)  # fmt: skip
OFF = LossWeights(coarse=0.0, fine=1.0)


def encoder(seed=0):
    torch.manual_seed(seed)
    return PixelEncoder(width=8, fine_channels=16)


def moving(count, generator):
    """Real video of coloured noise that moves by two cells, as smooth as a fine map can follow."""
    small = torch.rand(count, 3, 14, 16, generator=generator)
    wide = torch.nn.functional.interpolate(small, scale_factor=5, mode="bilinear")
    return torch.stack([wide[..., 4:52, 4:52], wide[..., 4:52, 8:56]], dim=1)


@pytest.fixture(scope="module")
def labelled():
    return next(training_data.batches(TINY, 0, 0))


@pytest.fixture(scope="module")
def real():
    return moving(2, torch.Generator().manual_seed(0))


def learn(labelled, real, weights, measured, config=TINY, steps=40, teacher=None):
    """The losses `measured`, before and after learning one batch by heart by minimising `weights`."""
    model = encoder()
    judge = training.new_discriminator(model, config)
    optimizer = torch.optim.Adam([*model.parameters(), *judge.parameters()], 5e-3)
    seen = []
    for step in range(steps):
        torch.manual_seed(step)
        given = (model, judge, labelled, real, config)
        found = train_step(*given, measured, teacher)
        optimizer.zero_grad()
        counted = asdict(weights)
        sum(counted[name] * loss for name, loss in found.items() if name in counted).backward()
        optimizer.step()
        seen.append({name: value.item() for name, value in found.items()})
    return {n: (seen[0][n], sum(s[n] for s in seen[-4:]) / 4) for n in seen[0]}


def test_carried_masks_are_learnt_by_heart_and_only_if_asked():
    """The masks loss of one batch falls when it is minimised, and not when nothing is."""
    config = replace(TINY, frames=3, size=64)
    clips = next(training_data.batches(config, 0, 0, masks=True))
    only, measured = LossWeights(0.0, 0.0, masks=1.0), LossWeights(1.0, 1.0, masks=1.0)
    before, after = learn(clips, None, only, measured, config, 30)["masks"]
    assert after < 0.6 * before
    model = encoder()
    assert set(train_step(model, None, clips, None, config, only)) == {"masks", "total"}
    assert "masks" not in train_step(model, None, clips, None, config, LossWeights())
    without = replace(clips, masks=None)
    with pytest.raises(ValueError, match="the masks loss needs labelled clips with masks, got none"):
        train_step(model, None, without, None, config, only)
    with pytest.raises(ValueError, match="masks, procedural ones, got flyingchairs"):
        training.check(model, replace(config, labelled="flyingchairs", data_root="data"), only, None)


def test_reconstruction_is_learnt_by_heart_and_only_if_asked(labelled, real):
    """Its floor is what the drawing of the dropped colour leaves; from nothing, the mean of a window."""
    measured = LossWeights(coarse=0.0, fine=1.0, reconstruction=1.0)
    config = replace(TINY, coarse_reconstruction=False)
    before, after = learn(labelled, real, LossWeights(0.0, 0.0, 1.0), measured, config, 25)["reconstruction"]
    _, without = learn(labelled, real, OFF, measured, config, 25)["reconstruction"]
    assert after < 0.5 * before and after < 0.6 * without, (before, after, without)


def test_the_discriminator_learns_by_heart_and_reversal_takes_it_away(labelled, real):
    """Without reversal the judge tells the domains apart; with it the network hides from the judge; off, chance."""
    measured, both = LossWeights(domain=1.0, coarse=0.0), LossWeights(coarse=0.0, domain=1.0)
    config = replace(TINY, domain_warm_up=False, domain_cells=200)
    _, watching = learn(labelled, real, both, measured, replace(config, domain_strength=0.0))["domain"]
    _, hidden_from = learn(labelled, real, both, measured, replace(config, domain_strength=5.0))["domain"]
    _, off = learn(labelled, real, OFF, measured, config)["domain"]
    assert watching < 0.5, watching
    assert hidden_from > 0.6, (watching, hidden_from)
    assert off > 0.65, off


@pytest.mark.parametrize("label", ["hard", "gaussian", "teacher", "teacher_gaussian"])
def test_every_label_is_learnt_by_heart(labelled, label):
    teacher = encoder(1).eval()
    found = learn(labelled, None, LossWeights(), LossWeights(), replace(TINY, label=label), 30, teacher)
    for name in ("coarse", "fine"):
        before, after = found[name]
        assert after < before - 0.35, (name, before, after)


@pytest.mark.parametrize(("processor", "kind"), [("AVX2", torch.float32), ("AVX512", torch.bfloat16)])
def test_bfloat16_only_where_the_processor_multiplies_it(processor, kind, labelled, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    model, seen = encoder(), []
    raw = model.raw
    monkeypatch.setattr(model, "raw", lambda *args: seen.append(raw(*args)) or seen[-1])
    training.train_step(model, None, labelled, None, replace(TINY, bfloat16=True), LossWeights())
    assert [features.fine.dtype for features in seen] == [kind]


def test_losses_that_are_off_are_left_out(labelled, real):
    model, judge = encoder(), training.new_discriminator(encoder(), TINY)
    everything = LossWeights(1.0, 1.0, 1.0, 1.0)
    assert set(train_step(model, judge, labelled, real, TINY, everything)) == {
        "coarse", "fine", "reconstruction", "domain", "domain_accuracy", "total",
    }  # fmt: skip
    assert set(train_step(model, None, labelled, None, TINY, LossWeights(fine=0.0))) == {"coarse", "total"}
    assert set(train_step(model, None, None, real, TINY, LossWeights(0.0, 0.0, 1.0))) == {"reconstruction", "total"}


def test_total_counts_all_losses(labelled, real):
    weights = LossWeights(0.5, 2.0, 3.0, 4.0)
    judge = training.new_discriminator(encoder(), TINY)
    found = {n: v.item() for n, v in train_step(encoder(), judge, labelled, real, TINY, weights).items()}
    expected = 0.5 * found["coarse"] + 2 * found["fine"] + 3 * found["reconstruction"] + 4 * found["domain"]
    assert found["total"] == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_the_adversary_is_turned_round(labelled, real):
    """The network's gradient of the domain loss changes sign with the strength; the judge's own does not."""
    grads = {}
    for strength in (1.0, 0.0):
        model = encoder()
        judge = training.new_discriminator(model, TINY)
        torch.manual_seed(0)
        config = replace(TINY, domain_strength=strength, domain_warm_up=False)
        found = train_step(model, judge, labelled, real, config, LossWeights(0.0, 1.0, 0.0, 1.0))
        found["domain"].backward()
        grads[strength] = judge.layers[0].weight.grad.clone(), model.fine.weight.grad.norm(), judge.sent
    assert torch.allclose(grads[1.0][0], grads[0.0][0]) and grads[1.0][0].any()
    assert grads[1.0][1] > 0 and grads[1.0][2] > 0
    assert grads[0.0][1] == 0 and grads[0.0][2] == 0


def test_no_colour_is_missing_on_one_side_only(labelled, real, monkeypatch):
    """Where labelled frames keep their colours, what the adversary sees of real ones does too."""
    asked = []
    monkeypatch.setattr(PixelEncoder, "raw", lambda self, rgb, drop=None, raw=PixelEncoder.raw: (
        asked.append(drop), raw(self, rgb, drop))[1])  # fmt: skip
    weights, judge = LossWeights(0.0, 1.0, 1.0, 1.0), training.new_discriminator(encoder(), TINY)
    train_step(encoder(), judge, labelled, real, replace(TINY, drop_channels=False), weights)
    assert asked[0] is None and asked[1] in (1, 2) and asked[2] is None
    asked.clear()
    train_step(encoder(), judge, labelled, real, TINY, weights)
    assert len(asked) == 2 and set(asked) <= {1, 2}


def test_running_statistics_can_be_those_of_real_video(labelled, real):
    weights = LossWeights(0.0, 1.0, 1.0)
    still, mixed = encoder(), encoder()
    for model, only_real in ((still, True), (mixed, False)):
        model.train()
        train_step(model, None, labelled, real, replace(TINY, real_statistics=only_real), weights)
    norm = still.stem[1]
    assert norm.momentum == 0.1 and norm.num_batches_tracked == 2
    alone = encoder().train()
    torch.manual_seed(0)
    train_step(alone, None, None, real, TINY, LossWeights(0.0, 0.0, 1.0))
    # The dropped channel may differ; brightness, which is never dropped, rules the mean of the first layer.
    distance = [(m.stem[1].running_var - alone.stem[1].running_var).abs().sum() for m in (still, mixed)]
    assert distance[0] < distance[1]


def test_several_reference_frames(real):
    three = torch.cat([real[:, :1], real], dim=1)
    found = train_step(encoder(), None, None, three, TINY, LossWeights(0.0, 0.0, 1.0))
    assert torch.isfinite(found["reconstruction"])


@pytest.mark.parametrize("kind", alignment.INPUTS)
def test_every_input_of_the_discriminator(labelled, real, kind):
    config, model = replace(TINY, domain_input=kind), encoder()
    judge = training.new_discriminator(model, config)
    found = train_step(model, judge, labelled, real, config, LossWeights(0.0, 1.0, 0.0, 1.0))
    found["total"].backward()
    assert torch.isfinite(found["domain"]) and judge.sent > 0


def test_the_step_reads_as_the_method():
    """At most 40 lines below its docstring, and nothing but the method in them."""
    body = inspect.getsource(training_step.train_step).split('"""')[2].strip().splitlines()
    assert len(body) < 40
    assert not {"print", "open(", "cuda", ".to("} & set(" ".join(body).split())
