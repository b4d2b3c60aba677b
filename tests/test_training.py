"""Training: losses fall, the data do not depend on the workers, and a stopped run goes on as if it had not."""

import math
import multiprocessing
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from corrlib import baselines, coords, processes, recipes, training, training_data
from corrlib.encoder import PaperEncoder, PixelEncoder
from corrlib.losses import LossWeights
from corrlib.muon import Muon
from corrlib.training import TrainConfig

TINY = TrainConfig(steps=6, clips=1, frames=2, size=48, points=40, width=8, textures=4, learning_rate=5e-3)


def encoder():
    torch.manual_seed(0)
    return PixelEncoder(width=8, fine_channels=16)


def weights_of(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def least(batch, lattice, size=TINY.size):
    """The floor of a loss on bilinear labels, their entropy: of a point's shares between two columns and two rows."""
    cells = coords.to_cells(batch.tracks, lattice)
    share = cells.frac()
    entropy = -(torch.special.xlogy(share, share) + torch.special.xlogy(1 - share, 1 - share)).sum(dim=-1)
    within = cells.ceil().amax(dim=-1) < coords.lattice_size((size, size), lattice)[0]
    counted = within & batch.visible.all(dim=1, keepdim=True)
    return ((entropy * counted).sum(dim=(0, 2)) / counted.sum(dim=(0, 2))).mean().item()


def test_one_batch_can_be_learnt_by_heart():
    """Overfit mode: of what both losses have above their floors little is left; of one that is switched off, most."""
    batch = next(training_data.batches(replace(TINY, appearance=0.0), 0, 0))
    floors = {"coarse": least(batch, coords.Lattice(8)), "fine": least(batch, coords.Lattice(2))}

    def left(weights):
        """The share of both losses that is left; whatever is minimised, both are measured."""
        model = encoder()
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        seen = []
        for step in range(30):
            torch.manual_seed(step)
            losses = training.train_step(model, None, batch, None, TINY, LossWeights())
            optimizer.zero_grad()
            (weights.coarse * losses["coarse"] + weights.fine * losses["fine"]).backward()
            optimizer.step()
            seen.append({name: losses[name].item() - floor for name, floor in floors.items()})
        assert all(value > 0 for record in seen for value in record.values())
        return {name: sum(s[name] for s in seen[-3:]) / 3 / seen[0][name] for name in floors}

    both, no_fine = left(LossWeights()), left(LossWeights(fine=0.0))
    assert both["coarse"] < 0.15 and both["fine"] < 0.2
    assert no_fine["coarse"] < 0.15 and no_fine["fine"] > 0.5


def test_total_is_the_weighted_sum():
    batch = next(training_data.batches(TINY, 0, 0))
    losses = training.train_step(encoder(), None, batch, None, TINY, LossWeights(coarse=2.0, fine=0.5))
    assert losses["total"].item() == pytest.approx(2 * losses["coarse"].item() + 0.5 * losses["fine"].item(), rel=1e-5)


def test_the_rate_falls_to_what_is_asked_for():
    config = replace(TINY, steps=4, warm_up=0.0, last_rate=0.25)
    rates = [record["learning_rate"] / config.learning_rate for record in training.train(encoder(), config)]
    assert rates == pytest.approx([0.25 + 0.75 * 0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)])


def test_the_optimiser_is_the_one_asked_for():
    """And of a record from before there was a choice, the one of then."""
    for name, moves in (("muon", Muon), ("adamw", torch.optim.AdamW)):
        config = replace(TINY, optimizer=name, weight_decay=0.3)
        made = training.new_optimizer(list(encoder().parameters()), config)
        assert type(made) is moves and {group["weight_decay"] for group in made.param_groups} == {0.3}
        assert made.param_groups[-1]["lr"] == config.learning_rate
    assert recipes.completed({})["optimizer"] == "adamw" and "optimizer" not in recipes.completed({}, LossWeights)


def test_the_papers_encoder_is_gone_on_from_as_it_is():
    start, config = PaperEncoder(stage4=True), recipes.PAPER.config
    assert training.shape_of(start) == {"encoder": "paper", "stage4": True}
    assert training.new_encoder(replace(config, **training.shape_of(start)), start) is start
    with pytest.raises(ValueError, match=r"should be of .*'stage4': False.*, got .*'stage4': True"):
        training.new_encoder(config, start)


def test_weights_are_those_of_the_gradients():
    exact = replace(TINY, bfloat16=False)  # whose sums would differ by their rounding
    batch, gradients = next(training_data.batches(exact, 0, 0)), []
    for weights in (LossWeights(fine=0.0), LossWeights(coarse=0.0), LossWeights(coarse=0.5, fine=3.0)):
        model = encoder()
        torch.manual_seed(0)
        training.add_gradients((model, None), [(batch, None)], exact, weights, None, 1.0, processes.ALONE)
        got = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
        gradients.append(torch.cat([each.flatten() for each in got]))
    coarse, fine, both = gradients
    torch.testing.assert_close(0.5 * coarse + 3 * fine, both, rtol=1e-3, atol=1e-3 * both.abs().max().item())


def test_hidden_points_teach_nothing():
    batch = next(training_data.batches(TINY, 0, 0))
    blind = replace(batch, visible=torch.zeros_like(batch.visible))
    losses = training.train_step(encoder(), None, blind, None, TINY, LossWeights())
    assert losses["total"].item() == 0


def test_clips_do_not_depend_on_workers_nor_on_the_start():
    config = replace(TINY, steps=3)
    alone, helped = list(training_data.batches(config, 0, 0)), list(training_data.batches(config, 0, 1))
    late = list(training_data.batches(config, 2, 0))
    assert len(alone) == len(helped) == 3 and len(late) == 1
    for one, two in zip([*alone, alone[2]], [*helped, late[0]]):
        assert torch.equal(one.video, two.video) and torch.equal(one.tracks, two.tracks)
    assert not torch.equal(alone[0].video, alone[1].video)


def test_content_and_textures_are_those_asked_for(tmp_path):
    """Another content, or a folder of pictures of one colour, gives other clips."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 50, 3), 128, np.uint8))
    plain, flat, own = (
        training.ProceduralClips(replace(TINY, **changes))
        for changes in ({}, {"content": '{"solids": 0, "figures": 0}'}, {"texture_folder": str(tmp_path)})
    )
    videos = [clips[1].video for clips in (plain, flat, own)]
    assert not torch.equal(videos[0], videos[1]) and not torch.equal(videos[0], videos[2])
    vivid = training.ProceduralClips(replace(TINY, vivid=True))
    assert not torch.equal(vivid[1].video, videos[0])
    turns = training.ProceduralClips(replace(TINY, content='[{}, {"solids": 0, "figures": 0}]'))
    assert torch.equal(turns[2].video, plain[2].video) and torch.equal(turns[1].video, videos[1])
    with pytest.raises(FileNotFoundError, match="textures: no folder"):
        training.ProceduralClips(replace(TINY, texture_folder=str(tmp_path / "gone")))


def test_resuming_gives_the_weights_of_the_unbroken_run(tmp_path):
    whole, broken = encoder(), encoder()
    history = training.train(whole, TINY)
    state = tmp_path / "state.pt"
    stopped = training.train(broken, TINY, state_path=state, seconds=0.0)
    assert 1 <= len(stopped) < TINY.steps
    fresh = encoder()
    resumed = training.train(fresh, TINY, state_path=state)
    assert torch.equal(weights_of(whole), weights_of(fresh))
    assert [r["total"] for r in resumed] == [r["total"] for r in history]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.pt"]


def test_equal_seeds_give_equal_weights_and_others_do_not():
    one, two, other = encoder(), encoder(), encoder()
    training.train(one, TINY), training.train(two, TINY), training.train(other, replace(TINY, seed=1))
    assert torch.equal(weights_of(one), weights_of(two))
    assert not torch.equal(weights_of(one), weights_of(other))


def test_evaluation_and_reports_during_training():
    reported = []
    history = training.train(
        encoder(),
        TINY,
        report=lambda step, record: reported.append(step),
        evaluate=lambda model: {"score": float(not model.training)},
        evaluate_every=3,
    )
    assert reported == list(range(6))
    assert ["score" in record for record in history] == [False, False, True, False, False, True]
    assert history[2]["score"] == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps should be above 0, got 0"),
        ({"temperature": 0.0}, "temperature should be above 0"),
        ({"learning_rate": -1.0}, "learning_rate should be above 0"),
        ({"frames": 1}, "frames should be at least 2, size 32 and max_gap 1, got 1"),
        ({"size": 16}, "got 3, 16 and"),
        ({"max_gap": 0.5}, "got 3, 160 and 0.5"),
        ({"label": "soft"}, "label should be one of bilinear, hard, gaussian, teacher, teacher_gaussian, got 'soft'"),
    ],
)
def test_bad_configurations_are_refused_before_the_first_step(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)


def test_a_loss_that_is_not_finite_stops_training():
    model = encoder()
    model.fine.weight.data.fill_(float("inf"))
    with pytest.raises(ValueError, match=r"finite|NaN|inf"):
        training.train(model, TINY)


def test_a_state_of_another_training_is_refused(tmp_path):
    state = tmp_path / "state.pt"
    training.train(encoder(), TINY, state_path=state, seconds=0.0)
    before = state.read_bytes()
    with pytest.raises(ValueError, match="training of another configuration"):
        training.train(encoder(), replace(TINY, seed=3), state_path=state)
    assert state.read_bytes() == before


WHOLE = LossWeights(reconstruction=1.0, domain=1.0)


def test_the_whole_method_resumes_and_logs(tmp_path, real_folder):
    """With teacher, reconstruction and adversary, a broken run ends as the unbroken one, discriminator and all."""
    config = replace(
        TINY, real_videos=real_folder, own_radius=3, label="teacher", teacher_momentum=0.9, drop_channels=True
    )
    whole, broken, fresh, state = encoder(), encoder(), encoder(), tmp_path / "state.pt"
    history = training.train(whole, config, WHOLE)
    assert 1 <= len(training.train(broken, config, WHOLE, state, seconds=0.0)) < config.steps
    resumed = training.train(fresh, config, WHOLE, state)
    assert torch.equal(weights_of(whole), weights_of(fresh))
    assert [r["total"] for r in resumed] == [r["total"] for r in history]
    assert {"reconstruction", "domain", "domain_accuracy", "domain_gradient", "coarse", "fine"} <= history[0].keys()
    with pytest.raises(ValueError, match="training of another configuration"):
        training.train(encoder(), config, LossWeights(reconstruction=0.5, domain=1.0), state)


def test_the_adversarys_gradient_grows_from_nothing(real_folder):
    config = replace(TINY, real_videos=real_folder, own_radius=3)
    history = training.train(encoder(), config, WHOLE)
    assert history[0]["domain_gradient"] == 0 < history[1]["domain_gradient"]
    constant = training.train(encoder(), replace(config, domain_warm_up=False, steps=1), WHOLE)
    assert constant[0]["domain_gradient"] > 0


def test_reconstruction_alone_needs_no_labelled_clips(real_folder, monkeypatch):
    monkeypatch.setattr(training, "batches", None)
    config = replace(TINY, real_videos=real_folder, own_radius=3, steps=2)
    history = training.train(encoder(), config, LossWeights(0.0, 0.0, 1.0))
    assert history[0].keys() == {"step", "learning_rate", "seconds", "waited", "reconstruction", "total"}


def test_a_running_mean_follows_the_student():
    teacher, student = encoder(), encoder()
    with torch.no_grad():
        student.fine.weight += 1
    before = teacher.fine.weight.clone()
    training.follow(teacher, student, 0.75)
    assert torch.allclose(teacher.fine.weight, before + 0.25)
    student.stem[1].running_mean += 2
    training.follow(teacher, student, 0.75)
    assert torch.equal(teacher.stem[1].running_mean, student.stem[1].running_mean)


def test_parts_of_a_step_add_up():
    """Two parts are one with both clips, where each has as many valid points and the same batch statistics."""
    config = replace(TINY, window="query", radius=20, bfloat16=False)
    one = training_data.collate([training.ProceduralClips(config)[0]])
    both = training_data.Batch(*(torch.cat([value, value]) for value in (one.video, one.tracks, one.visible)))
    found, gradients = [], []
    for shown in ([[both, None]], [[one, None], [one, None]]):
        model = encoder().train()
        how = (config, LossWeights(), None, 1.0, processes.ALONE)
        found.append(training.add_gradients((model, None), shown, *how)["total"].item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert found[0] == pytest.approx(found[1], rel=1e-5) and gradients[0].norm() > 0.1
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()
    history = training.train(encoder(), replace(config, clips=2, accumulate=2, steps=2))
    assert len(history) == 2 and history[0].keys() == {
        "step",
        "learning_rate",
        "seconds",
        "waited",
        "coarse",
        "fine",
        "total",
    }


def test_the_weights_kept_are_a_running_mean_if_so_wished(tmp_path):
    """That of the weights after each step; a broken run ends as the unbroken one."""
    config, looked = replace(TINY, ema=0.5), []
    plain = encoder()
    start = weights_of(plain)
    expected = [start]
    training.train(plain, TINY, evaluate=lambda model: looked.append(weights_of(model)) or {}, evaluate_every=1)
    for step, value in enumerate(looked):
        momentum = min(0.5, (step + 1) / (step + 10))
        expected.append(momentum * expected[-1] + (1 - momentum) * value)
    averaged, seen = encoder(), []
    training.train(averaged, config, evaluate=lambda model: seen.append(weights_of(model)) or {}, evaluate_every=1)
    names = [name for name, _ in encoder().named_parameters()]
    own = torch.cat([torch.full((v.numel(),), name in names) for name, v in encoder().state_dict().items()])
    for found, value in zip(seen, expected[1:]):
        assert torch.allclose(found[own], value[own], atol=1e-6)
    assert torch.equal(weights_of(averaged), seen[-1]) and not torch.allclose(seen[-1][own], looked[-1][own], atol=1e-4)
    broken, fresh, state = encoder(), encoder(), tmp_path / "state.pt"
    assert len(training.train(broken, config, state_path=state, seconds=0.0)) < config.steps
    training.train(fresh, config, state_path=state)
    assert torch.equal(weights_of(fresh), weights_of(averaged))


def test_video_that_vanishes_is_named(tmp_path, real_folder):
    """And the state is as it was last."""
    config, state = replace(TINY, real_videos=real_folder, own_radius=3, steps=4), tmp_path / "state.pt"

    def lose(step, record):
        if step == 1:
            shutil.rmtree(real_folder)

    training.train(encoder(), config, LossWeights(0.0, 0.0, 1.0), state, seconds=0.0)
    before = state.read_bytes()
    with pytest.raises(FileNotFoundError, match=r"^open_video: no file or folder .*real.a\.$"):
        training.train(encoder(), config, LossWeights(0.0, 0.0, 1.0), state, report=lose)
    assert state.read_bytes() == before


def train_without_workers(pipe, state):
    """In a process of its own, since torch raises the error at any moment, even at the end of a test."""

    def kill(step, record):
        for worker in multiprocessing.active_children():
            worker.kill()

    try:
        training.train(encoder(), replace(TINY, steps=60, size=32), workers=1, report=kill, state_path=state)
    except ChildProcessError as error:
        pipe.send(str(error))


def test_a_killed_worker_is_told(tmp_path):
    state, fork = tmp_path / "state.pt", multiprocessing.get_context("fork")
    training.train(encoder(), replace(TINY, steps=60, size=32), state_path=state, seconds=0.0)
    before = state.read_bytes()
    mine, theirs = fork.Pipe()
    child = fork.Process(target=train_without_workers, args=(theirs, state))
    child.start()
    theirs.close()
    said = mine.recv()
    child.join()
    assert "a process that makes clips was killed" in said and "the same command goes on" in said
    assert state.read_bytes() == before


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset by peer"), EOFError("ran out of input")])
def test_what_fails_elsewhere_is_not_told_as_a_killed_worker(error):
    def report(step, record):
        raise error

    with pytest.raises(type(error), match=str(error.args[-1])):
        training.train(encoder(), TINY, report=report)


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match="there should be 6 clips, got 5"):
        training.train(encoder(), TINY, clips=[training.ProceduralClips(TINY)[0]] * 5)


def test_clips_may_be_given():
    """The same clips from elsewhere give the same weights."""
    one, two = encoder(), encoder()
    training.train(one, TINY)
    training.train(two, TINY, clips=[training.ProceduralClips(TINY)[i] for i in range(6)])
    assert torch.equal(weights_of(one), weights_of(two))


def at_stride(coarse, fine):
    model = encoder()
    model.coarse_lattice, model.fine_lattice = training.coords.Lattice(coarse), training.coords.Lattice(fine)
    return model


@pytest.mark.parametrize(
    ("changes", "weights", "teacher", "message"),
    [
        ({}, WHOLE, None, r"need real video: real_videos should name a folder, got ''"),
        ({"real_videos": "gone"}, LossWeights(0.0, 0.0, 1.0, 1.0), None, "the domain loss needs labelled clips too"),
        ({"radius": 25}, LossWeights(), None, "radius should be at most 24, the side of the fine map, got 25"),
        ({"real_videos": "gone", "own_radius": 25}, WHOLE, None, "own_radius should be at most 24"),
        ({"label": "teacher"}, LossWeights(), None, "labels of kind teacher need a teacher, got none"),
        ({"label": "teacher"}, LossWeights(), at_stride(8, 4), "the teacher should have the encoder's lattices"),
        (
            {"label": "teacher", "legacy_label_norm": True},
            LossWeights(),
            baselines.SiftEncoder(),
            "legacy_label_norm needs a teacher with raw features",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_first_step(changes, weights, teacher, message, monkeypatch):
    monkeypatch.setattr(training, "train_step", None)
    with pytest.raises(ValueError, match=message):
        training.train(encoder(), replace(TINY, **changes), weights, teacher=teacher)


def test_missing_real_video_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "train_step", None)
    config = replace(TINY, own_radius=3)
    with pytest.raises(FileNotFoundError, match="real video: no folder"):
        training.train(encoder(), replace(config, real_videos=str(tmp_path / "gone")), WHOLE)
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((50, 60, 3), np.uint8))
    with pytest.raises(ValueError, match="should have at least 2 frames, got 1"):
        training.train(encoder(), replace(config, real_videos=str(tmp_path)), WHOLE)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": 0.0}, "sigma should be above 0, got 0"),
        ({"label_temperature": 0.0}, "label_temperature should be above 0"),
        ({"own_radius": 0}, "own_radius should be above 0"),
        ({"domain_input": "logits"}, "domain_input should be one of raw, normalised, softmax, features, got 'logits'"),
        ({"window": "all"}, "window should be one of target, query"),
        ({"encoder": "large"}, "encoder should be one of small, paper"),
        ({"labelled": "sintel"}, "labelled should be one of procedural, flyingthings3d, flyingchairs"),
        ({"labelled": "flyingthings3d"}, "data_root should be the folder of flyingthings3d, got ''"),
        ({"points": 0}, "points should be at least 2 and domain_cells 0, got 0"),
        ({"points": 1}, "points should be at least 2 and domain_cells 0, got 1"),
        ({"domain_strength": -1.0}, "domain_strength should be at least 0"),
        ({"ema": 1.0}, r"ema should be in \[0, 1\), got 1"),
        ({"accumulate": 0}, "accumulate should be above 0"),
        ({"teacher_momentum": 1.0}, r"teacher_momentum should be in \[0, 1\), got 1"),
    ],
)
def test_bad_settings_of_the_method(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)
