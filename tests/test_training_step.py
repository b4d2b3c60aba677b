"""The method's step: each loss falls on one batch when it is minimised, and does not when it is not."""

import inspect
from dataclasses import asdict, replace

import pytest
import torch

from corrlib import alignment, cielab, coords, losses, training, training_data, training_step
from corrlib.encoder import PixelEncoder
from corrlib.losses import LossWeights
from corrlib.recipes import PAPER
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


@pytest.fixture(scope="module")
def teacher(labelled):
    """One that has learnt enough for its labels to say where things are."""
    model = encoder(1)
    learn(labelled, None, LossWeights(), LossWeights(), steps=20, model=model)
    return model.eval()


def learn(labelled, real, weights, measured, config=TINY, steps=40, teacher=None, model=None):
    """The losses `measured`, before and after learning one batch by heart by minimising `weights`."""
    model = model or encoder()
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


def entropies(step, *given):
    """What is left of the losses of a step of `learn` where each answer is its label."""

    def answered(logits, label, *how):
        return losses.soft_label_cross_entropy(label.clamp(min=1e-30).log(), label, *how)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(training_step, "soft_label_cross_entropy", answered)
        torch.manual_seed(step)
        return train_step(*given)


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
    """Its floor is what the drawing between the right cells leaves; from nothing, the mean of a window."""
    measured = LossWeights(coarse=0.0, fine=1.0, reconstruction=1.0)
    config = replace(TINY, coarse_reconstruction=False)
    before, after = learn(labelled, real, LossWeights(0.0, 0.0, 1.0), measured, config)["reconstruction"]
    _, without = learn(labelled, real, OFF, measured, config, 25)["reconstruction"]
    truth = cielab.rgb_to_lab(real[:, -1])[:, 1:]
    floor = losses.reconstruction_loss(truth[..., ::2, ::2], truth, coords.Lattice(2)).item()
    assert floor < after < floor + 0.3 * (before - floor), (before, after, floor)
    assert without > floor + 0.5 * (before - floor), (before, without, floor)


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
def test_every_label_is_learnt_by_heart(labelled, label, teacher):
    """Most of what a loss has above the labels' own entropy, its floor, is gone."""
    config = replace(TINY, label=label)
    found = learn(labelled, None, LossWeights(), LossWeights(), config, 30, teacher)
    least = [entropies(s, encoder(), None, labelled, None, config, LossWeights(), teacher) for s in (0, 26, 27, 28, 29)]
    for name in ("coarse", "fine"):
        floors = [each[name].item() for each in least]
        before, after = found[name][0] - floors[0], found[name][1] - sum(floors[1:]) / 4
        assert 0 < after < 0.2 * before and before > 1.2, (name, before, after, floors)


@pytest.mark.parametrize(
    ("processor", "has", "kind"),
    [("AVX2", True, torch.float32), ("AVX512", False, torch.float32), ("AVX512", True, torch.bfloat16)],
)
def test_bfloat16_only_where_the_processor_multiplies_it(processor, has, kind, labelled, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
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


def test_total_counts_all_losses(real):
    weights, labelled = LossWeights(0.5, 2.0, 3.0, 4.0, 5.0), next(training_data.batches(TINY, 0, 0, masks=True))
    judge = training.new_discriminator(encoder(), TINY)
    found = {n: v.item() for n, v in train_step(encoder(), judge, labelled, real, TINY, weights).items()}
    expected = 0.5 * found["coarse"] + 2 * found["fine"] + 3 * found["reconstruction"] + 4 * found["domain"]
    assert found["total"] == pytest.approx(expected + 5 * found["masks"], rel=1e-5)
    assert min(found[name] for name in asdict(weights)) > 0.1


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


def test_the_colour_rebuilt_is_the_one_the_encoder_was_not_shown(monkeypatch):
    """Frames of one colour each are rebuilt as the frame before, whatever the features: 20 times the gap, less 1/2."""
    asked = []
    monkeypatch.setattr(PixelEncoder, "raw", lambda self, rgb, drop=None, raw=PixelEncoder.raw: (
        asked.append(drop), raw(self, rgb, drop))[1])  # fmt: skip
    colours = torch.tensor([[0.2, 0.6, 0.3], [0.6, 0.3, 0.4]])
    still = colours[None, :, :, None, None].expand(2, 2, 3, 48, 48)
    one, other = cielab.rgb_to_lab(colours[:, :, None, None]).flatten(1)
    model = encoder()
    for seed in range(6):
        torch.manual_seed(seed)
        found = train_step(model, None, None, still, TINY, LossWeights(0.0, 0.0, 1.0))["reconstruction"]
        expected = 20 * (one - other).abs()[asked[-1]] - 0.5
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert set(asked) == {1, 2}


@pytest.mark.parametrize(("outside_zero", "outside"), [(True, 16), (False, 0)])
def test_cells_outside_the_frame_have_a_product_of_zero_if_so_wished(outside_zero, outside, teacher):
    """By hand at a corner, where 16 of the 25 cells are outside: in the student's answer and the teacher's label."""
    video = torch.rand(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    still = training_data.Batch(video, torch.zeros(1, 2, 1, 2), torch.ones(1, 2, 1, dtype=torch.bool))
    config = replace(
        TINY, label="teacher", label_temperature=0.5, temperature=0.4, window="query", radius=2,
        drop_channels=False, outside_zero=outside_zero, bfloat16=False,
    )  # fmt: skip
    student = encoder()
    found = train_step(student, None, still, None, config, OFF, teacher)["fine"]
    asked, known = (model(video[0]).fine[:, :, :3, :3].flatten(2) for model in (student, teacher))
    expected = 0.0
    for i, j in ((0, 1), (1, 0)):  # the label is the teacher's in the frame searched alone
        said, label = (
            torch.cat([query[:, 0] @ key, torch.zeros(outside)]) / temperature
            for query, key, temperature in ((asked[i], asked[j], 0.4), (known[j], known[j], 0.5))
        )
        expected -= (label.softmax(0) * said.log_softmax(0)).sum().item() / 2
    assert found.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("label", ["hard", "bilinear", "gaussian"])
def test_motion_never_puts_a_label_outside(label):
    """Between the last fine cell and the frame's edge nothing is asked, whether or not cells outside may answer."""
    video, seen = torch.rand(1, 2, 3, 32, 32), torch.ones(1, 2, 1, dtype=torch.bool)
    edge = training_data.Batch(video, torch.full((1, 2, 1, 2), 31.0), seen)
    config = replace(TINY, label=label, sigma=2.0, window="query", radius=2, outside_zero=True, bfloat16=False)
    assert train_step(encoder(), None, edge, None, config, OFF)["fine"] == 0


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


def shifted(pixels, lattice):
    """A pair of noise that moves so far to the left, asked at each cell of its first frame."""
    wide = torch.rand(1, 3, 48, 48 + pixels, generator=torch.Generator().manual_seed(0))
    video = torch.stack([wide[..., :48], wide[..., pixels:]], dim=1)
    size_hw = coords.lattice_size((48, 48), lattice)
    start = coords.to_pixels(coords.grid(size_hw), lattice).reshape(1, -1, 2)
    tracks = torch.stack([start, start - torch.tensor([float(pixels), 0.0])], dim=1)
    return training_data.Batch(video, tracks, coords.inside(tracks, (48, 48)))


def test_the_papers_fourth_stage_is_trained_at_its_own_scale():
    """By its teacher's labels at stride 8, with all below it; of still video the teacher itself answers with those."""
    config, weights = replace(PAPER.config, stage4=True, size=48, clips=1), LossWeights(fine=0.0)
    torch.manual_seed(0)
    student, teacher = training.new_encoder(config), training.new_encoder(config).eval()
    training.check(student, config, weights, teacher)
    clip = shifted(8, teacher.fine_lattice)
    optimizer, seen = training.new_optimizer(list(student.parameters()), config), []
    for _ in range(4):
        optimizer.zero_grad()
        loss = train_step(student, None, clip, None, config, weights, teacher)["total"]
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert student.stage4 is not None and seen[3] < seen[0] - 0.2
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in student.parameters())
    still, shown = shifted(0, teacher.coarse_lattice), replace(config, drop_channels=False)
    answer = train_step(teacher, None, still, None, shown, weights, teacher)["coarse"].item()
    seen_by_teacher = teacher(still.video[0]).coarse[0].flatten(1)
    label = torch.distributions.Categorical(logits=seen_by_teacher.T @ seen_by_teacher / 0.07)
    assert answer == pytest.approx(label.entropy().mean().item(), rel=1e-4) and answer < 2


def test_the_step_reads_as_the_method():
    """At most 40 lines below its docstring, and nothing but the method in them."""
    body = inspect.getsource(training_step.train_step).split('"""')[2].strip().splitlines()
    assert len(body) < 40
    assert not {"print", "open(", "cuda", ".to("} & set(" ".join(body).split())
