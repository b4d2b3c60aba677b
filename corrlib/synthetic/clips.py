"""Samples out of scenes: clips with tracks, pairs with flow, masks and joints."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from .. import coords
from ..samples import FlowPair, MaskClip, TrackClip
from .scenes import Points, Scene, Shot


def track_clip(
    made: Scene, times: list[float], num_points: int, query_frames: int = 1, masks: bool = False
) -> TrackClip:
    """The frames of a scene at some times, with points seen in them and their exact tracks.

    Args:
        made: the scene.
        times: when to look, in frames; they need not be whole, nor evenly spaced.
        num_points: number of tracks, the same from each of the query frames.
        query_frames: points are asked in that many first frames of the clip.
        masks: whether the sample holds the masks of all things in front of the background.

    Raises:
        ValueError: fewer than two times, or no query frame among them.
    """
    if len(times) < 2:
        raise ValueError(f"track_clip: times should be at least 2, got {len(times)}.")
    if not 1 <= query_frames <= len(times):
        raise ValueError(f"track_clip: query_frames should be 1 to {len(times)}, got {query_frames}.")
    each = num_points // query_frames
    shots = list(made.shots(times))
    same = len(shots) == 1 and query_frames == len(times)
    first = shots[0] if same else made.at(times[:query_frames])
    xy, points = seen_points(first, each, torch.Generator().manual_seed(made.seed))
    tracks, visible, _ = (torch.cat(values) for values in zip(*(shot.track(points) for shot in shots)))
    asked = torch.arange(float(query_frames), device=xy.device)[:, None, None].expand(-1, each, 1)
    queries = rearrange(torch.cat([asked, xy], dim=-1), "T P c -> (T P) c")
    seen = [shot.render(truth=masks) for shot in shots]
    video = (torch.cat([frames.video for frames in seen]) * 255).round().to(torch.uint8)
    numbers = torch.cat([frames.masks for frames in seen]) if masks else None
    return TrackClip(video, queries, tracks, visible, torch.ones_like(visible), f"procedural-{made.seed}", numbers)


def seen_points(shot: Shot, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "T count 2"], Points]:
    """Random pixel positions at each time, half of them on objects where there are any, and what is there."""
    (H, W), T = shot.scene.size_hw, len(shot.times)
    xy = torch.rand(T, 4 * count, 2, generator=generator) * torch.tensor([W, H]) - 0.5
    xy = xy.to(shot.times.device)
    points = shot.seen(xy)
    on_object = rearrange(points.actor > 0, "(T P) -> T P", T=T)
    # Objects first, but no more than half of what is wanted unless there is nothing else.
    rank = on_object.int().cumsum(1)
    first = torch.where(on_object, torch.where(rank <= count // 2, 0, 2), 1)
    chosen = first.argsort(dim=1, stable=True)[:, :count]
    flat = (chosen + torch.arange(T, device=xy.device)[:, None] * 4 * count).flatten()
    return xy.gather(1, chosen[..., None].expand(-1, -1, 2)), Points(*(value[flat] for value in points))


def flow_pair(made: Scene, time0: float, time1: float) -> FlowPair:
    """Two frames of a scene with the exact flow between them, known everywhere."""
    H = made.size_hw[0]
    xy = rearrange(coords.grid(made.size_hw, made.motion.depth.device), "H W c -> (H W) c")
    tracks, visible = made.follow(xy, time0, [time1])
    flow_0to1 = rearrange(tracks[0] - xy, "(H W) c -> c H W", H=H)
    visible = rearrange(visible[0], "(H W) -> H W", H=H)
    frame0, frame1 = made.render([time0, time1]).video
    return FlowPair(frame0, frame1, flow_0to1, torch.ones_like(visible), visible, f"procedural-{made.seed}")


def mask_clip(made: Scene, times: list[float]) -> MaskClip:
    """The frames of a scene with a number for everything in front of the background."""
    found = made.render(times)
    return MaskClip((found.video * 255).round().to(torch.uint8), found.masks, f"procedural-{made.seed}")


def joints(made: Scene, times: list[float]) -> tuple[list[str], Float[Tensor, "T J 2"], Bool[Tensor, "T J"]]:
    """The joints of all bodies: their names, positions, and whether they can be seen.

    A name is number of the mask, family member's joint: "3 left knee". A joint lies inside of its
    limb: it is seen where the first surface in front of it is that of a part which hangs on it, or
    that it hangs on.
    """
    shot, names, places, seen = made.at(times), [], [], []
    number = 1
    for a, (it, planes, pose) in enumerate(zip(made.actors, shot.alone, shot.poses)):
        if pose is not None:
            u, v, _ = pose.see(pose.joint)
            x, y = planes.to_frame(u[:, None], v[:, None])
            xy = torch.stack([x[:, 0], y[:, 0]], dim=-1)
            top = shot.seen(xy)
            part = rearrange(top.part, "(T J) -> T J", T=len(times))
            own = torch.arange(len(it.parent), device=part.device)
            above = torch.tensor(it.parent, device=part.device)
            here = rearrange(top.actor == a, "(T J) -> T J", T=len(times)) & ((part == own) | (part == above))
            names += [f"{number + int(m)} {name}" for m, name in zip(it.member, it.joint_names)]
            places.append(xy)
            seen.append(here & coords.inside(xy, made.size_hw))
            number += int(it.member.max())
        number += a > 0
    if not names:
        empty = torch.zeros(len(times), 0)
        return [], empty[..., None].expand(-1, -1, 2), empty.bool()
    return names, torch.cat(places, dim=1), torch.cat(seen, dim=1)
