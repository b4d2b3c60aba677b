"""Procedural video with exact motion: textured layers that move, turn, bend and hide one another.

A `Scene` is a background (layer 0) and opaque objects in front of it, later layers nearer. A
material point u of a layer, in texture pixels about the layer's centre, is seen at time t at

    x = H_t(v),  where  u = v + d_t(v)

with H_t a homography and d_t a few slow waves. From frame to layer this is closed form, which is
all that rendering needs; from layer to frame `to_frame` solves it by iteration to float precision,
which gives tracks, flow and visibility at any sub-pixel position. Times are in frames and need
not be whole, so that pairs may lie any number of frames apart.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from . import coords
from .samples import FlowPair, TrackClip

WAVES = 3  # components of the bending of each layer
TEXTURE_SIZE = 320
# d_t is a contraction by 3 * 0.12 at most, and 0.36 ** 14 of it is below float32's resolution.
ITERATIONS = 14
EVERY = (slice(None), None)
Which = Int[Tensor, "*points"] | tuple


@dataclass(frozen=True)
class Scene:
    """All that is needed to render a procedural clip: L layers, the motion of each as sinusoids."""

    size_hw: tuple[int, int]
    textures: Float[Tensor, "L 4 S S"]  # red, green, blue, and how opaque a layer is within its outline
    pose_mean: Float[Tensor, "L 8"]  # x, y, log scale, rotation, log aspect, shear, two of perspective
    pose_wave: Float[Tensor, "L 8 2"]  # amplitudes of two sinusoids in time
    pose_rate: Float[Tensor, "L 8 2"]  # radians a frame
    pose_phase: Float[Tensor, "L 8 2"]
    bend_direction: Float[Tensor, "L K 2"]  # texture pixels
    bend_frequency: Float[Tensor, "L K 2"]  # radians a texture pixel
    bend_phase: Float[Tensor, "L K 2"]  # in space, in time
    bend_rate: Float[Tensor, "L K"]
    outline: Float[Tensor, "L 9"]  # radius, then cosine and sine amplitudes of four harmonics
    light: Float[Tensor, "4 3"]  # amplitude, rate, phase of gain, offset, and of each of two gradients
    noise: float
    blur: float
    seed: int

    def homography(self, time: float) -> Float[Tensor, "L 3 3"]:
        """The maps from layer plane to frame at a time, one a layer."""
        wave = self.pose_wave * (self.pose_rate * time + self.pose_phase).sin()
        x, y, scale, turn, aspect, shear, px, py = (self.pose_mean + wave.sum(-1)).unbind(-1)
        cos, sin, sx, sy = turn.cos(), turn.sin(), (scale + aspect).exp(), (scale - aspect).exp()
        top = [cos * sx, (shear * cos - sin) * sy, x]
        rows = [*top, sin * sx, (shear * sin + cos) * sy, y, px, py, torch.ones_like(x)]
        return rearrange(torch.stack(rows, dim=-1), "L (i j) -> L i j", i=3)

    # In what follows `which` picks the layer of each point out of the parameters of all: a tensor
    # of layer numbers, one a point, or EVERY, for points of shape (L, P, 2), P in each layer.

    def bend(self, plane: Float[Tensor, "*points 2"], which: Which, time: float) -> Float[Tensor, "*points 2"]:
        """d_t at points of the plane of each point's own layer."""
        strength = (self.bend_rate * time + self.bend_phase[..., 1]).sin()[which]
        frequency, phase, direction = (
            self.bend_frequency[which],
            self.bend_phase[..., 0][which],
            self.bend_direction[which],
        )
        x, y = plane.unbind(-1)
        total = torch.zeros_like(plane)
        for k in range(WAVES):
            angle = frequency[..., k, 0] * x + frequency[..., k, 1] * y + phase[..., k]
            total = total + direction[..., k, :] * (strength[..., k] * angle.sin())[..., None]
        return total

    def to_frame(self, points: Float[Tensor, "P 2"], which: Which, time: float) -> Float[Tensor, "P 2"]:
        """Where material points of given layers are seen at a time, in pixels."""
        plane = points
        for _ in range(ITERATIONS):
            plane = points - self.bend(plane, which, time)
        return project(self.homography(time)[which], plane)

    def to_layer(self, xy: Float[Tensor, "*points 2"], which: Which, time: float) -> Float[Tensor, "*all 2"]:
        """The material point of given layers at pixel positions of the frame at a time."""
        plane = project(torch.linalg.inv(self.homography(time))[which], xy)
        return plane + self.bend(plane, which, time)

    def paint(self, points: Float[Tensor, "L *points 2"]) -> Float[Tensor, "L 4 *points"]:
        """Colour and opacity of each layer at material points of it."""
        centre = (self.textures.shape[-1] - 1) / 2
        painted = mirror_sample(self.textures, points + centre)
        opacity = painted[:, 3] * self.within(points)
        opacity[0] = 1
        return torch.cat([painted[:, :3], opacity[:, None]], dim=1)

    def within(self, points: Float[Tensor, "L *points 2"]) -> Float[Tensor, "L *points"]:
        """Whether material points lie within their layers' outlines, with a soft edge."""
        x, y = points.unbind(-1)
        radius = (x * x + y * y).sqrt().clamp(min=1e-6)
        cos, sin = x / radius, y / radius
        outline = rearrange(self.outline, "L k -> L" + " 1" * (x.ndim - 1) + " k")
        edge, cos_k, sin_k = outline[..., 0], torch.ones_like(x), torch.zeros_like(x)
        for k in range(4):  # cosine and sine of multiples of the angle by the addition formulas
            cos_k, sin_k = cos_k * cos - sin_k * sin, sin_k * cos + cos_k * sin
            edge = edge + outline[..., 1 + 2 * k] * cos_k + outline[..., 2 + 2 * k] * sin_k
        return (0.5 + (edge - radius) / 1.5).clamp(0, 1)

    def nearest(self, alpha: Float[Tensor, "L *points"]) -> Int[Tensor, "*points"]:
        """The number of the nearest layer that is more than half opaque."""
        number = torch.arange(len(alpha)).reshape(-1, *[1] * (alpha.ndim - 1))
        return ((alpha > 0.5) * number).amax(dim=0)

    def top_layer(self, xy: Float[Tensor, "P 2"], time: float) -> Int[Tensor, "P"]:
        """The layer seen at pixel positions."""
        return self.nearest(self.paint(self.to_layer(xy, EVERY, time))[:, 3])

    def follow(
        self, xy: Float[Tensor, "P 2"], time: float, times: list[float]
    ) -> tuple[Float[Tensor, "T P 2"], Bool[Tensor, "T P"]]:
        """The exact tracks, with visibility, of whatever is seen at pixel positions at one time."""
        layer = self.top_layer(xy, time)
        material = self.to_layer(xy, layer, time)
        tracks = torch.stack([self.to_frame(material, layer, t) for t in times])
        visible = [
            (self.top_layer(track, t) == layer) & coords.inside(track, self.size_hw) for track, t in zip(tracks, times)
        ]
        return tracks, torch.stack(visible)

    def render(self, time: float) -> tuple[Float[Tensor, "3 H W"], Int[Tensor, "H W"]]:
        """The frame at a time, and the layer seen at each of its pixels."""
        H = self.size_hw[0]
        where = self.to_layer(rearrange(coords.grid(self.size_hw), "H W c -> (H W) c"), EVERY, time)
        painted = rearrange(self.paint(where), "L c (H W) -> L c H W", H=H)
        colours, alpha = painted[:, :3], painted[:, 3]
        frame = colours[0]
        for layer in range(1, len(alpha)):
            frame = torch.lerp(frame, colours[layer], alpha[layer])
        return self.expose(frame, time), self.nearest(alpha)

    def expose(self, frame: Float[Tensor, "3 H W"], time: float) -> Float[Tensor, "3 H W"]:
        """The camera: light that changes smoothly over time and space, defocus, sensor noise, 8 bits."""
        gain, offset, slope_x, slope_y = self.light[:, 0] * (self.light[:, 1] * time + self.light[:, 2]).sin()
        xy = 2 * coords.grid(self.size_hw) / max(self.size_hw) - 1
        frame = frame * (1 + gain + slope_x * xy[..., 0] + slope_y * xy[..., 1]) + offset
        if self.blur > 0.3:
            kernel = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / (2 * self.blur**2))
            kernel = (kernel / kernel.sum()).expand(3, 1, 1, 7)
            padded = F.pad(frame[None], (3, 3, 3, 3), mode="replicate")
            frame = F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.mT, groups=3)[0]
        generator = torch.Generator().manual_seed(self.seed * 1009 + round(time * 16))
        frame = frame + self.noise * torch.randn(frame.shape, generator=generator)
        return (frame.clamp(0, 1) * 255).round() / 255


def project(homography: Float[Tensor, "*maps 3 3"], xy: Float[Tensor, "*points 2"]) -> Float[Tensor, "*all 2"]:
    """Points through homographies, broadcast against each other."""
    x, y = xy.unbind(-1)
    X, Y, Z = (homography[..., i, 0] * x + homography[..., i, 1] * y + homography[..., i, 2] for i in range(3))
    return torch.stack([X / Z, Y / Z], dim=-1)


def mirror_sample(values: Float[Tensor, "L C S S"], xy: Float[Tensor, "L *points 2"]) -> Float[Tensor, "L C *points"]:
    """Bilinear samples of square maps that are continued beyond their edges as in a mirror."""
    period = 2 * (values.shape[-1] - 1)
    folded = xy.remainder(period)
    return coords.sample(values, torch.minimum(folded, period - folded))[0]


def scene(
    seed: int,
    size_hw: tuple[int, int],
    bank: UInt8[Tensor, "N 3 S S"],
    speed: tuple[float, float] = (0.7, 20.0),
    num_objects: tuple[int, int] = (3, 7),
) -> Scene:
    """A random scene.

    Args:
        seed: the same seed gives the same scene.
        size_hw: frame size, at least 16 x 16.
        bank: textures to choose from (`textures.bank`).
        speed: range of the typical object speed in pixels a frame at 256 lines, drawn log-uniformly.
        num_objects: range of the number of layers in front of the background, inclusive.

    Raises:
        ValueError: a side is below 16 pixels, or the speed range is not positive and ordered.
    """
    H, W = size_hw
    if min(size_hw) < 16:
        raise ValueError(f"scene: size_hw should be at least (16, 16), got {tuple(size_hw)}.")
    if not 0 < speed[0] <= speed[1]:
        raise ValueError(f"scene: speed should be two positive numbers in order, got {speed}.")
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=g)

    L = 1 + int(torch.randint(num_objects[0], num_objects[1] + 1, (), generator=g))
    unit = min(H, W) / 256  # all lengths are meant at 256 lines
    pace = math.exp(draw(1, low=math.log(speed[0]), high=math.log(speed[1])).item())
    share = draw(L, low=0.6, high=1.4)  # of the pace, one a layer
    share[0] = draw(1, low=0.3, high=1.0)  # the camera is calmer than the objects
    reach = draw(L, 2, low=25, high=85) * unit  # amplitude of the path, pixels
    # A sinusoid of amplitude A and rate w moves at A w / sqrt(2) on average; rates above 0.6
    # radians a frame would look like shaking, so that the fastest objects swing more widely.
    rate = (pace * unit * share[:, None] * 1.41 / reach).clamp(max=0.6)

    pose_mean, pose_wave = torch.zeros(L, 8), torch.zeros(L, 8, 2)
    pose_mean[:, :2] = draw(L, 2, low=0.12, high=0.88) * torch.tensor([W, H])
    pose_mean[:, 2] = draw(L, low=-0.35, high=0.35) + math.log(unit)
    pose_mean[:, 3] = draw(L, high=2 * math.pi)
    pose_mean[:, 4:6] = draw(L, 2, low=-0.2, high=0.2)
    pose_mean[0, 2] = draw(1, low=0.15, high=0.5).item() + math.log(unit)
    # How much of the full swing in scale, turn and shape a scene of this pace makes.
    vigour = min(1.0, 0.25 + pace / 8)
    pose_wave[:, :2, 0], pose_wave[:, :2, 1] = reach * 0.85, reach * 0.3
    pose_wave[:, 2, 0] = draw(L, low=0.0, high=0.5) * vigour
    pose_wave[:, 3, 0] = draw(L, low=0.0, high=0.9) * vigour
    pose_wave[:, 4:6, 0] = draw(L, 2, low=0.0, high=0.18) * vigour
    pose_wave[:, 6:, 0] = draw(L, 2, low=0.0, high=0.0012) * vigour / unit
    pose_wave[0, 2:] *= 0.5
    pose_rate = rate.mean(dim=1)[:, None, None] * draw(L, 8, 2, low=0.5, high=1.3)
    pose_rate[:, :2] = rate[..., None] * torch.tensor([1.0, 1.7]) * draw(L, 2, 2, low=0.8, high=1.2)

    angle, length = draw(L, WAVES, high=2 * math.pi), draw(L, WAVES, low=40, high=160)
    frequency = torch.stack([angle.cos(), angle.sin()], -1) * (2 * math.pi / length)[..., None]
    angle = draw(L, WAVES, high=2 * math.pi)
    strength = draw(L, WAVES, high=0.12) * draw(L, 1) * length / (2 * math.pi)  # contraction 0.12 a wave
    outline = torch.zeros(L, 9)
    outline[:, 0] = torch.exp(draw(L, low=math.log(20), high=math.log(75)))
    outline[:, 1:] = draw(L, 8, low=-0.16, high=0.16) * outline[:, :1]
    light = torch.stack([draw(4) * torch.tensor([0.2, 0.08, 0.15, 0.15]), draw(4, high=0.25), draw(4, high=6.3)], -1)
    return Scene(
        size_hw=(H, W),
        textures=F.pad(bank[torch.randint(len(bank), (L,), generator=g)] / 255, (0, 0, 0, 0, 0, 1), value=1.0),
        pose_mean=pose_mean,
        pose_wave=pose_wave,
        pose_rate=pose_rate,
        pose_phase=draw(L, 8, 2, high=2 * math.pi),
        bend_direction=torch.stack([angle.cos(), angle.sin()], -1) * strength[..., None],
        bend_frequency=frequency,
        bend_phase=draw(L, WAVES, 2, high=2 * math.pi),
        bend_rate=rate.mean(dim=1, keepdim=True) * draw(L, WAVES, low=0.3, high=1.5),
        outline=outline,
        light=light,
        noise=draw(1, high=0.03).item(),
        blur=draw(1, high=1.1).item(),
        seed=seed,
    )


def track_clip(made: Scene, times: list[float], num_points: int, query_frames: int = 1) -> TrackClip:
    """The frames of a scene at some times, with points seen in them and their exact tracks.

    Args:
        made: the scene.
        times: when to look, in frames; they need not be whole, nor evenly spaced.
        num_points: number of tracks, the same from each of the query frames.
        query_frames: points are asked in that many first frames of the clip.

    Raises:
        ValueError: fewer than two times, or no query frame among them.
    """
    if len(times) < 2:
        raise ValueError(f"track_clip: times should be at least 2, got {len(times)}.")
    if not 1 <= query_frames <= len(times):
        raise ValueError(f"track_clip: query_frames should be 1 to {len(times)}, got {query_frames}.")
    video = torch.stack([(made.render(t)[0] * 255).round().to(torch.uint8) for t in times])
    generator = torch.Generator().manual_seed(made.seed)
    queries, followed = [], []
    for frame in range(query_frames):
        xy = seen_points(made, times[frame], num_points // query_frames, generator)
        followed.append(made.follow(xy, times[frame], times))
        queries.append(torch.cat([torch.full((len(xy), 1), float(frame)), xy], dim=1))
    tracks, visible = (torch.cat(parts, dim=1) for parts in zip(*followed))
    name = f"procedural-{made.seed}"
    return TrackClip(video, torch.cat(queries), tracks, visible, torch.ones_like(visible), name)


def seen_points(made: Scene, time: float, count: int, generator: torch.Generator) -> Float[Tensor, "count 2"]:
    """Random pixel positions, half of them on objects, where there are any in the frame."""
    H, W = made.size_hw
    xy = torch.rand(8 * count, 2, generator=generator) * torch.tensor([W, H]) - 0.5
    on_object = made.top_layer(xy, time) > 0
    return torch.cat([xy[on_object][: count // 2], xy[~on_object], xy[on_object][count // 2 :]])[:count]


def flow_pair(made: Scene, time0: float, time1: float) -> FlowPair:
    """Two frames of a scene with the exact flow between them, known everywhere."""
    H = made.size_hw[0]
    xy = rearrange(coords.grid(made.size_hw), "H W c -> (H W) c")
    tracks, visible = made.follow(xy, time0, [time1])
    flow_0to1 = rearrange(tracks[0] - xy, "(H W) c -> c H W", H=H)
    visible = rearrange(visible[0], "(H W) -> H W", H=H)
    frame0, frame1 = made.render(time0)[0], made.render(time1)[0]
    return FlowPair(frame0, frame1, flow_0to1, torch.ones_like(visible), visible, f"procedural-{made.seed}")
