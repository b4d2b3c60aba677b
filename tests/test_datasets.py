"""Every reader against a tiny data set in the official format, written here; odd sizes throughout."""

import json
import os
import pickle
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from corrlib import flow
from corrlib.datasets import (
    badja,
    davis,
    flyingchairs,
    flyingthings3d,
    jhmdb,
    kinetics,
    kitti,
    kubric,
    middlebury,
    sintel,
    tapvid,
    youtube_vos,
)
from corrlib.frames import write_video
from corrlib.metrics import joint_box_scale

SIZE = (37, 53)
ALL = (
    badja,
    davis,
    flyingchairs,
    flyingthings3d,
    jhmdb,
    kinetics,
    kitti,
    kubric,
    middlebury,
    sintel,
    tapvid,
    youtube_vos,
)


def picture(seed: int, size_hw: tuple[int, int] = SIZE) -> np.ndarray:
    """An (H, W, 3) RGB image of blocks; no two seeds give the same."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_NEAREST)


def save(path: Path, image: np.ndarray) -> Path:
    """An RGB or grey image under any suffix that OpenCV writes; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return path


def save_palette(path: Path, ids: np.ndarray) -> None:
    """A palette PNG whose colours are nothing like its ids, as in DAVIS-2017."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8), mode="P")
    image.putpalette([255 - v // 3 for v in range(768)])
    image.save(path)


def tensor(image: np.ndarray) -> torch.Tensor:
    """What a reader should make of an image written by `save` without loss, (3, H, W) in [0, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255


def some_flow(size_hw: tuple[int, int] = SIZE) -> torch.Tensor:
    """A flow whose two channels and all of whose rows differ, (2, H, W)."""
    return torch.arange(2 * size_hw[0] * size_hw[1]).reshape(2, *size_hw) / 64 - 20


def save_pfm(path: Path, values: torch.Tensor, scale: str = "-1.0") -> None:
    """FlyingThings3D's flow file: three channels, rows from the bottom up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    H, W = values.shape[1:]
    rows = np.concatenate([values.numpy(), np.zeros((1, H, W))])[:, ::-1].transpose(1, 2, 0)
    order = "<" if scale.startswith("-") else ">"
    path.write_bytes(f"PF\n{W} {H}\n{scale}\n".encode() + rows.astype(f"{order}f4").tobytes())


@pytest.mark.parametrize("module", ALL, ids=lambda m: m.__name__.rsplit(".")[-1])
def test_every_reader_says_what_is_missing(tmp_path, module):
    with pytest.raises(FileNotFoundError, match=rf'no {tmp_path}/.*See data/README\.md, row "{module.ROW}"'):
        module.names(tmp_path)
    with pytest.raises(FileNotFoundError, match=rf'no {tmp_path}/.*See data/README\.md, row "'):
        module.read(tmp_path, "a/into_future/left/0001" if module is flyingthings3d else "a/frame_0001")


def test_every_reader_has_its_row_in_the_readme():
    readme = (Path(__file__).parent.parent / "data/README.md").read_text()
    for module in ALL:
        assert re.search(rf"^\| {re.escape(module.ROW)} \|", readme, flags=re.MULTILINE), module.ROW


def write_davis(root: Path, name: str, masks: list[np.ndarray | None], size_hw: tuple[int, int] = SIZE) -> None:
    """A clip and those of its masks that are given."""
    for t, mask in enumerate(masks):
        save(root / f"DAVIS/JPEGImages/480p/{name}/{t:05d}.jpg", picture(t, size_hw))
        if mask is not None:
            save_palette(root / f"DAVIS/Annotations/480p/{name}/{t:05d}.png", mask)


def ids(*values: int) -> np.ndarray:
    """A mask of vertical bands."""
    return np.repeat(np.resize(np.array(values), SIZE[1])[None], SIZE[0], axis=0)


def test_davis_2017(tmp_path):
    write_davis(tmp_path, "b-clip", [ids(0, 1, 2, 255), ids(2, 0)])
    lists = tmp_path / "DAVIS/ImageSets/2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("b-clip\na-clip\n\n")
    (lists / "train.txt").write_text("c\n")
    assert davis.names(tmp_path) == ["a-clip", "b-clip"]
    clip = davis.read(tmp_path, "b-clip")
    assert clip.video.shape == (2, 3, *SIZE)
    assert clip.video.dtype == torch.uint8
    assert (clip.video[1].float() - 255 * tensor(picture(1))).abs().mean() < 12  # JPEG, and RGB not BGR
    assert torch.equal(clip.masks[0], torch.from_numpy(ids(0, 1, 2, 0)))
    assert torch.equal(clip.masks[1], torch.from_numpy(ids(2, 0)))
    with pytest.raises(ValueError, match=r"split should be one of train, val \(in .*2017\), got test"):
        davis.names(tmp_path, "test")


def test_davis_2016_is_one_object(tmp_path):
    write_davis(tmp_path, "clip", [ids(0, 255), ids(3, 0, 1)])
    assert davis.read(tmp_path, "clip", year=2016).masks.tolist() == [
        ids(0, 1).tolist(),
        ids(1, 0, 1).tolist(),
    ]
    with pytest.raises(ValueError, match=r"00000\.png should hold object ids, .* read with year=2016"):
        davis.read(tmp_path, "clip")


def test_davis_2016_lists_of_paths(tmp_path):
    lists = tmp_path / "DAVIS/ImageSets/480p"
    lists.mkdir(parents=True)
    line = "/JPEGImages/480p/{0}/00000.jpg /Annotations/480p/{0}/00000.png\n"
    (lists / "val.txt").write_text(line.format("b") * 3 + line.format("a"))
    assert davis.names(tmp_path, "val", year=2016) == ["a", "b"]


def test_davis_frames_without_masks(tmp_path):
    write_davis(tmp_path, "testdev", [ids(0, 1), None, None])
    assert davis.read(tmp_path, "testdev").masks[:, 0, :2].tolist() == [[0, 1], [-1, -1], [-1, -1]]
    write_davis(tmp_path, "holes", [ids(0, 1), ids(0, 1), None])
    with pytest.raises(ValueError, match=r"holes should have a mask for each of 3 frames or for 00000 alone, got 2"):
        davis.read(tmp_path, "holes")


def test_davis_mask_errors(tmp_path):
    write_davis(tmp_path, "wide", [np.zeros((37, 50))])
    with pytest.raises(ValueError, match=r"00000\.png should be \(37, 53\) \(H, W\) like its frame, got \(37, 50\)"):
        davis.read(tmp_path, "wide")
    write_davis(tmp_path, "broken", [ids(0, 1)])
    for content in (b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(20)):
        (tmp_path / "DAVIS/Annotations/480p/broken/00000.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"broken/00000\.png should be an image, got"):
            davis.read(tmp_path, "broken")
    save(tmp_path / "DAVIS/Annotations/480p/broken/00000.png", picture(3))
    with pytest.raises(ValueError, match=r"00000\.png should be a palette or grey image, got mode RGB"):
        davis.read(tmp_path, "broken")
    (tmp_path / "DAVIS/JPEGImages/480p/broken/00000.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"expected an image, got .*00000\.jpg"):
        davis.read(tmp_path, "broken")


def test_davis_frames_of_two_sizes(tmp_path):
    write_davis(tmp_path, "clip", [ids(0, 1), ids(0, 1)])
    save(tmp_path / "DAVIS/JPEGImages/480p/clip/00001.jpg", picture(1, (30, 53)))
    with pytest.raises(ValueError, match=r"00001\.jpg should be \(37, 53\) \(H, W\) like .*00000\.jpg, got \(30, 53\)"):
        davis.read(tmp_path, "clip")


def write_badja(root: Path, name: str, times: list[int], folder: str = "DAVIS/JPEGImages/Full-Resolution") -> None:
    """Labels in which joint k of frame t is at y = 10 k + t, x = 20 k, joint 9 hidden and 10 nowhere."""
    labels = []
    for t in times:
        joints, visible = [[10 * k + t, 20 * k] for k in range(37)], [True] * 37
        visible[9] = visible[10] = False
        joints[10] = [0, 0]
        image = f"{folder}/{name}/{t:05d}.jpg"
        seg = image.replace("JPEGImages", "Annotations").replace("jpg", "png")
        labels.append({"image_path": image, "segmentation_path": seg, "joints": joints, "visibility": visible})
    path = root / f"BADJA/joint_annotations/{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(labels))


def test_badja(tmp_path):
    """Labels on frames 2 and 5 of 7; the mask of 3 is missing, that of 4 empty."""
    masks = [ids(0, 1), ids(0, 1), ids(0, 1, 2, 3), None, ids(0), np.eye(*SIZE) * 255, ids(0, 1)]
    write_davis(tmp_path, "bear", masks)
    write_badja(tmp_path, "bear", [2, 5])
    write_badja(tmp_path, "rs_dog", [0], folder="extra_videos")
    write_badja(tmp_path, "wolf", [0])
    assert badja.names(tmp_path) == ["bear"]  # of the wolf there are no frames
    clip = badja.read(tmp_path, "bear")
    assert clip.video.shape == (4, 3, *SIZE)
    assert clip.joints.shape == (4, 20, 2)
    assert clip.visible.shape == clip.valid.shape == (4, 20)
    for t, time in ((0, 2), (3, 5)):
        k = torch.tensor(badja.JOINTS)
        expected = torch.stack([(20 * k + 0.5) * 53 / 1920 - 0.5, (10 * k + time + 0.5) * 37 / 1080 - 0.5], dim=-1)
        assert torch.allclose(clip.joints[t][clip.valid[t]], expected[k != 10], atol=1e-5)
        assert [badja.JOINTS[i] for i in range(20) if not clip.valid[t, i]] == [10]
        assert [badja.JOINTS[i] for i in range(20) if not clip.visible[t, i]] == [9, 10]
    assert not clip.valid[1:3].any()
    assert not clip.visible[1:3].any()
    area = (ids(0, 1, 2, 3) > 0).sum()
    assert clip.scale.tolist() == pytest.approx([area**0.5, np.nan, np.nan, 37**0.5], nan_ok=True)
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / "DAVIS" / kind / "480p").rename(tmp_path / "DAVIS" / kind / "Full-Resolution")
    assert badja.names(tmp_path) == ["bear"]
    full = badja.read(tmp_path, "bear")
    assert torch.equal(full.joints, clip.joints) and full.scale[0] == clip.scale[0]
    (tmp_path / "DAVIS").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r'no .*480p/bear\. See data/README\.md, row "DAVIS"'):
        badja.names(tmp_path)


def test_badja_errors(tmp_path):
    write_davis(tmp_path, "bear", [None] * 3)
    write_badja(tmp_path, "bear", [0, 5])
    with pytest.raises(FileNotFoundError, match=r'no .*bear/00003\.jpg\. See data/README\.md, row "DAVIS"'):
        badja.read(tmp_path, "bear")
    with pytest.raises(FileNotFoundError, match=r'no .*Full-Resolution/bear\. See data/README\.md, row "DAVIS"'):
        badja.read(tmp_path, "bear", "Full-Resolution")
    path = tmp_path / "BADJA/joint_annotations/bear.json"
    path.write_text(path.read_text().replace("[50, 100], ", ""))
    with pytest.raises(ValueError, match=r"bear\.json should have 37 joints \(y, x\) a frame, got \(36, 2\)"):
        badja.read(tmp_path, "bear")
    for content, message in (("[]", "should have labelled frames, got none"), ("[{", "should be JSON, got")):
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"bear\.json {message}"):
            badja.names(tmp_path)


def test_middlebury(tmp_path):
    for name in ("Venus", "Grove2"):
        for t in (10, 11):
            save(tmp_path / f"Middlebury/other-data/{name}/frame{t}.png", picture(t))
        (tmp_path / f"Middlebury/other-gt-flow/{name}").mkdir(parents=True)
        valid = torch.ones(SIZE, dtype=torch.bool)
        valid[0, :5] = False
        flow.write_flo(tmp_path / f"Middlebury/other-gt-flow/{name}/flow10.flo", some_flow(), valid)
    save(tmp_path / "Middlebury/other-data/Army/frame10.png", picture(0))
    assert middlebury.names(tmp_path) == ["Grove2", "Venus"]
    pair = middlebury.read(tmp_path, "Venus")
    assert torch.equal(pair.frame0, tensor(picture(10)))
    assert torch.equal(pair.frame1, tensor(picture(11)))
    assert torch.equal(pair.flow_0to1, some_flow() * valid)
    assert torch.equal(pair.valid, valid)
    assert torch.equal(pair.visible, valid)
    flow.write_flo(tmp_path / "Middlebury/other-gt-flow/Venus/flow10.flo", some_flow((37, 50)))
    with pytest.raises(ValueError, match=r"flow10\.flo should be \(37, 53\) .*frame10\.png, got \(37, 50\)"):
        middlebury.read(tmp_path, "Venus")
    (tmp_path / "Middlebury/other-gt-flow/Venus/flow10.flo").write_bytes(b"PIEH" + struct.pack("<ii", 53, 37))
    with pytest.raises(ValueError, match=r"flow10\.flo announces 53 x 37 pixels, which should be 15688 bytes"):
        middlebury.read(tmp_path, "Venus")


def test_sintel(tmp_path):
    """Scene a has both passes and all maps, scene b the final pass and no maps, scene c a lonely frame."""
    folder = tmp_path / "Sintel/training"
    scenes = {"a": (("clean", "final"), (9, 10)), "b": (("final",), (1, 2)), "c": (("clean",), (1,))}
    for scene, (renders, times) in scenes.items():
        for t in times:
            for k, render in enumerate(renders):
                save(folder / render / scene / f"frame_{t:04d}.png", picture(10 * k + t))
        (folder / "flow" / scene).mkdir(parents=True)
        flow.write_flo(folder / "flow" / scene / f"frame_{times[0]:04d}.flo", some_flow())
    hidden, invalid = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    hidden[2], invalid[:, 3] = 255, 255
    save(folder / "occlusions/a/frame_0009.png", hidden)
    save(folder / "invalid/a/frame_0009.png", invalid)
    assert sintel.names(tmp_path) == ["a/frame_0009"]
    assert sintel.names(tmp_path, "final") == ["a/frame_0009", "b/frame_0001"]
    assert sintel.names(tmp_path, "albedo") == []
    pair = sintel.read(tmp_path, "a/frame_0009", "final")
    assert torch.equal(pair.frame1, tensor(picture(20)))
    assert torch.equal(pair.flow_0to1, some_flow())
    assert torch.equal(pair.valid, torch.from_numpy(invalid == 0))
    assert torch.equal(pair.visible, torch.from_numpy((invalid == 0) & (hidden == 0)))
    assert sintel.read(tmp_path, "b/frame_0001", "final").visible.all()
    with pytest.raises(FileNotFoundError, match=r"no .*clean/b/frame_0001\.png"):
        sintel.read(tmp_path, "b/frame_0001")


@pytest.mark.parametrize("folder", ["FlyingChairs", "FlyingChairs/data"])
def test_flyingchairs(tmp_path, folder):
    save(tmp_path / folder / "00002_img1.ppm", picture(1))
    save(tmp_path / folder / "00002_img2.ppm", picture(2))
    flow.write_flo(tmp_path / folder / "00002_flow.flo", some_flow())
    save(tmp_path / folder / "0000001-img0.ppm", picture(3))
    save(tmp_path / folder / "0000001-img1.ppm", picture(4))
    flow.write_flo(tmp_path / folder / "0000001-gt.flo", -some_flow())
    assert flyingchairs.names(tmp_path) == ["0000001", "00002"]
    pair = flyingchairs.read(tmp_path, "00002")
    assert torch.equal(pair.frame0, tensor(picture(1)))
    assert torch.equal(pair.frame1, tensor(picture(2)))
    assert torch.equal(pair.flow_0to1, some_flow())
    assert torch.equal(flyingchairs.read(tmp_path, "0000001").flow_0to1, -some_flow())


def test_kitti(tmp_path):
    folder = tmp_path / "KITTI/training"
    for t in (10, 11):
        save(folder / f"image_2/000003_{t}.png", picture(t))
    known, seen = torch.zeros(SIZE, dtype=torch.bool), torch.zeros(SIZE, dtype=torch.bool)
    known[5:], seen[7:] = True, True
    for kind, valid in (("flow_occ", known), ("flow_noc", seen)):
        (folder / kind).mkdir()
        flow.write_kitti_png(folder / kind / "000003_10.png", some_flow(), valid)
    assert kitti.names(tmp_path) == ["000003"]
    pair = kitti.read(tmp_path, "000003")
    assert torch.equal(pair.frame1, tensor(picture(11)))
    assert torch.equal(pair.flow_0to1, some_flow() * known)
    assert torch.equal(pair.valid, known)
    assert torch.equal(pair.visible, seen)
    (folder / "flow_noc/000003_10.png").unlink()
    assert torch.equal(kitti.read(tmp_path, "000003").visible, known)


def write_things(root: Path, times: tuple[int, ...], suffix: str = "png", render: str = "frames_cleanpass") -> None:
    """One sequence: everything moves 2 px to the right and 1 up; the past's files are big-endian."""
    folder = root / "FlyingThings3D"
    ones = torch.ones(1, *SIZE)
    for t in times:
        save(folder / render / f"TRAIN/A/0007/left/{t:04d}.{suffix}", picture(t))
        flows = folder / "optical_flow/TRAIN/A/0007"
        save_pfm(flows / f"into_future/left/OpticalFlowIntoFuture_{t:04d}_L.pfm", torch.cat([2 * ones, -ones]))
        save_pfm(flows / f"into_past/left/OpticalFlowIntoPast_{t:04d}_L.pfm", torch.cat([-2 * ones, ones]), "1.0")


def test_flyingthings3d(tmp_path):
    write_things(tmp_path, (6, 7, 8))
    stem = "TRAIN/A/0007"
    names = [f"{stem}/into_future/left/{t:04d}" for t in (6, 7)] + [f"{stem}/into_past/left/{t:04d}" for t in (7, 8)]
    assert flyingthings3d.names(tmp_path) == names
    pair = flyingthings3d.read(tmp_path, names[1])
    assert torch.equal(pair.frame0, tensor(picture(7)))
    assert torch.equal(pair.frame1, tensor(picture(8)))
    assert pair.flow_0to1[:, 5, 5].tolist() == [2, -1]
    assert pair.valid.all()
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[1:, :51] = True
    assert torch.equal(pair.visible, expected)
    back = flyingthings3d.read(tmp_path, names[3])
    assert torch.equal(back.frame1, tensor(picture(7)))
    assert back.flow_0to1[:, 5, 5].tolist() == [-2, 1]


def test_flyingthings3d_webp_and_one_direction(tmp_path):
    write_things(tmp_path, (6, 7), "webp", "frames_cleanpass_webp")
    for path in (tmp_path / "FlyingThings3D/optical_flow").rglob("OpticalFlowIntoPast*"):
        path.unlink()
    names = flyingthings3d.names(tmp_path, render="frames_cleanpass_webp")
    assert names == ["TRAIN/A/0007/into_future/left/0006"]
    pair = flyingthings3d.read(tmp_path, names[0], render="frames_cleanpass_webp")
    assert pair.visible.all()
    with pytest.raises(FileNotFoundError, match=r"frames_cleanpass/TRAIN\. See"):
        flyingthings3d.names(tmp_path)


@pytest.mark.parametrize("folder", ["YouTube-VOS", "YouTube-VOS/2018"])
def test_youtube_vos(tmp_path, folder):
    for name, times in (("0b", (0, 5, 10)), ("0a", (20,))):
        for t in times:
            save(tmp_path / folder / f"train/JPEGImages/{name}/{t:05d}.jpg", picture(t))
    save_palette(tmp_path / folder / "train/Annotations/0b/00005.png", ids(0, 3))
    assert youtube_vos.names(tmp_path) == ["0a", "0b"]
    clip = youtube_vos.read(tmp_path, "0b")
    assert clip.masks[:, 0, :2].tolist() == [[-1, -1], [0, 3], [-1, -1]]
    pair = youtube_vos.read_pair(tmp_path, "0b", first=2, gap=-1)
    assert torch.equal(pair.frame0, clip.video[2] / 255)
    assert torch.equal(pair.frame1, clip.video[1] / 255)
    with pytest.raises(ValueError, match="frames 2 and 3 should be in 0 to 2 of 0b"):
        youtube_vos.read_pair(tmp_path, "0b", first=2)
    save_palette(tmp_path / folder / "train/Annotations/0b/00007.png", ids(0, 3))
    with pytest.raises(ValueError, match=r"0b/00007\.png should have a frame in .*JPEGImages/0b, got none"):
        youtube_vos.read(tmp_path, "0b")


def test_kinetics(tmp_path):
    video = torch.stack([torch.full((3, 36, 54), 40 * t) for t in range(5)]).to(torch.uint8)
    write_video(tmp_path / "Kinetics/jumping/b.webm", video)
    write_video(tmp_path / "Kinetics/a.webm", video[:2])
    (tmp_path / "Kinetics/list.csv").write_text("not a video")
    assert kinetics.names(tmp_path) == ["a.webm", "jumping/b.webm"]
    pair = kinetics.read(tmp_path, "jumping/b.webm", first=1, gap=3)
    assert pair.frame0.shape == (3, 36, 54)
    assert float(pair.frame0.mean()) == pytest.approx(40 / 255, abs=0.02)
    assert float(pair.frame1.mean()) == pytest.approx(160 / 255, abs=0.02)
    with pytest.raises(ValueError, match=r"a\.webm should have at least 3 frames, got fewer"):
        kinetics.read(tmp_path, "a.webm", first=1)
    with pytest.raises(ValueError, match="expected first >= 0 and gap >= 1, got 0 and 0"):
        kinetics.read(tmp_path, "a.webm", gap=0)


def points(T: int = 7) -> dict[str, np.ndarray]:
    """Three points: still, at the centre of pixel (26, 18); moving, hidden at first; never visible."""
    positions = np.zeros((3, T, 2))
    positions[0] = 26.5 / 53, 18.5 / 37
    positions[1, :, 0] = np.arange(T) / 10
    occluded = np.zeros((3, T), bool)
    occluded[1, :2] = occluded[2] = True
    video = np.stack([picture(t) for t in range(T)])
    return {"video": video, "points": positions, "occluded": occluded}


def write_tapvid(root: Path, subset: str, clips: object, protocol: int = 4, file: str = "") -> Path:
    """A pickle where the official one lies."""
    path = root / f"TAP-Vid/tapvid_{subset}" / (file or f"tapvid_{subset}.pkl")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(clips, protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_tapvid_davis(tmp_path, protocol):
    write_tapvid(tmp_path, "davis", {"goat": points(), "bear": points(3)}, protocol)
    assert tapvid.names(tmp_path) == ["bear", "goat"]
    clip = tapvid.read(tmp_path, "goat")
    assert torch.equal(clip.video[6] / 255, tensor(picture(6)))
    assert torch.allclose(clip.tracks[:, 0], torch.tensor([26.0, 18.0]))
    assert clip.query_points[0].tolist() == pytest.approx([0, 26, 18], abs=1e-5)
    assert clip.query_points[1].tolist() == pytest.approx([2, 0.2 * 53 - 0.5, -0.5], abs=1e-5)
    assert clip.visible.shape == (7, 2)  # the third is never visible
    assert clip.visible[:, 1].tolist() == [False, False, True, True, True, True, True]
    assert clip.valid.all()


def test_tapvid_strided_queries(tmp_path):
    """Frames 0 and 5: point 0 in both, point 1 in the second."""
    write_tapvid(tmp_path, "rgb_stacking", [points(), points(4)])
    assert tapvid.names(tmp_path, "rgb_stacking") == ["0000", "0001"]
    clip = tapvid.read(tmp_path, "0000", "rgb_stacking", query_mode="strided")
    assert clip.query_points[:, 0].tolist() == [0, 5, 5]
    assert torch.equal(clip.query_points[1:, 1:], clip.tracks[5, 1:])
    assert torch.equal(clip.tracks[:, 0], clip.tracks[:, 1])
    assert clip.visible.sum(dim=0).tolist() == [7, 7, 5]
    with pytest.raises(ValueError, match="query_mode should be first or strided, got last"):
        tapvid.read(tmp_path, "0000", "rgb_stacking", query_mode="last")


@pytest.mark.parametrize("as_array", [True, False])
def test_tapvid_kinetics_shards_of_encoded_frames(tmp_path, as_array):
    encoded = [cv2.imencode(".png", frame[..., ::-1])[1].tobytes() for frame in points()["video"]]
    clip = points() | {"video": np.array(encoded) if as_array else encoded}
    write_tapvid(tmp_path, "kinetics", [points(), clip], file="0000_of_0010.pkl")
    write_tapvid(tmp_path, "kinetics", [points(3)], file="0001_of_0010.pkl")
    names = ["0000_of_0010/0000", "0000_of_0010/0001", "0001_of_0010/0000"]
    assert tapvid.names(tmp_path, "kinetics") == names
    assert torch.equal(tapvid.read(tmp_path, names[1], "kinetics").video[6] / 255, tensor(picture(6)))
    assert len(tapvid.read(tmp_path, names[2], "kinetics").video) == 3
    with pytest.raises(ValueError, match=r"should be one of the 1 clips of .*0001_of_0010\.pkl, got .*/0001"):
        tapvid.read(tmp_path, "0001_of_0010/0001", "kinetics")


class Hostile:
    """Runs a command where an unguarded unpickler loads it."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_tapvid_refuses_a_pickle_that_runs_code(tmp_path, protocol):
    clip = points() | {"video": Hostile(f"touch {tmp_path}/ran")}
    path = write_tapvid(tmp_path, "davis", {"bear": clip}, protocol)
    with pytest.raises(ValueError, match=r"tapvid_davis\.pkl .* got: (posix|nt)\.system, refused because it could run"):
        tapvid.names(tmp_path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "ran").exists()  # the file was dangerous


def test_tapvid_errors(tmp_path):
    path = write_tapvid(tmp_path, "davis", {"bear": points()})
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"tapvid_davis\.pkl should be a whole pickle"):
        tapvid.names(tmp_path)
    write_tapvid(tmp_path, "davis", {"bear": {"video": np.zeros(3)}})
    with pytest.raises(ValueError, match=r"tapvid_davis\.pkl should hold clips with video, points and occluded"):
        tapvid.names(tmp_path)
    write_tapvid(tmp_path, "davis", {"bear": points() | {"points": np.zeros((3, 6, 2))}})
    with pytest.raises(ValueError, match=r"bear of .*\.pkl should have .* got .*\(3, 6, 2\) and \(3, 7\)"):
        tapvid.read(tmp_path, "bear")
    write_tapvid(tmp_path, "davis", {"bear": points() | {"video": [b"jpeg"] * 7}})
    with pytest.raises(ValueError, match=r"tapvid_davis\.pkl should hold JPEG frames, got 4 bytes"):
        tapvid.read(tmp_path, "bear")
    with pytest.raises(ValueError, match=r"name should be one of the 1 clips of .*, got wolf"):
        tapvid.read(tmp_path, "wolf")


def test_kubric(tmp_path):
    clip = points()
    folder = tmp_path / "Kubric/val"
    folder.mkdir(parents=True)
    arrays = {
        "video": clip["video"],
        "occluded": clip["occluded"],
        "target_points": clip["points"] * [53, 37],
    }
    np.savez(folder / "0001.npz", **arrays)
    np.savez(folder / "0000.npz", video=clip["video"])
    np.savez(folder / "0002.npz", **(arrays | {"occluded": np.array([None])}))
    (folder / "0003.npz").write_bytes(b"PK")
    assert kubric.names(tmp_path, "val") == ["0000", "0001", "0002", "0003"]
    read = kubric.read(tmp_path, "0001", "val")
    assert torch.allclose(read.tracks[3], torch.tensor([[26.0, 18.0], [0.3 * 53 - 0.5, -0.5]]))
    assert read.query_points[:, 0].tolist() == [0, 2]
    assert torch.equal(read.video[6] / 255, tensor(picture(6)))
    for name, found in (("0000", "got .*target_points"), ("0002", "got Object arrays"), ("0003", "got")):
        with pytest.raises(ValueError, match=rf"{name}\.npz should hold arrays video, .*{found}"):
            kubric.read(tmp_path, name, "val")


def write_jhmdb(root: Path, name: str, num_joints: int, num_frames: int) -> np.ndarray:
    """A video with joints in Matlab's coordinates, (2, 15, T), the first at the corner (1, 1)."""
    positions = np.random.default_rng(0).uniform(1, 36, (2, 15, num_joints))
    positions[:, 0], positions[:, 1] = 1, 60
    path = root / f"JHMDB/joint_positions/{name}/joint_positions.mat"
    path.parent.mkdir(parents=True)
    scipy.io.savemat(path, {"pos_img": positions, "scale": np.ones((1, num_joints))})
    for t in range(num_frames):
        save(root / f"JHMDB/Rename_Images/{name}/{t + 1:05d}.png", picture(t))
    return positions


def test_jhmdb(tmp_path):
    positions = write_jhmdb(tmp_path, "brush_hair/atest", 3, 5)
    splits = tmp_path / "JHMDB/splits"
    splits.mkdir()
    (splits / "brush_hair_test_split1.txt").write_text("atest.avi 2\nother.avi 1\n")
    (splits / "brush_hair_test_split2.txt").write_text("atest.avi 1\nother.avi 2\n")
    (splits / "catch_test_split1.txt").write_text("ball.avi 2 \n\n")
    assert jhmdb.names(tmp_path) == ["brush_hair/atest"]  # of the other there are no frames
    with pytest.raises(FileNotFoundError, match=r"no .*Rename_Images/brush_hair/other\."):
        jhmdb.names(tmp_path, "train")
    for name in ("catch/ball", "brush_hair/other"):
        (tmp_path / "JHMDB/Rename_Images" / name).mkdir(parents=True)
    assert jhmdb.names(tmp_path) == ["brush_hair/atest", "catch/ball"]
    assert jhmdb.names(tmp_path, "train") == ["brush_hair/other"]
    assert jhmdb.names(tmp_path, split=2) == ["brush_hair/other"]
    clip = jhmdb.read(tmp_path, "brush_hair/atest")
    assert clip.video.shape == (3, 3, *SIZE)
    assert torch.allclose(clip.joints, torch.from_numpy(positions.transpose(2, 1, 0) - 1).float())
    assert clip.joints[:, 0].unique().tolist() == [0]
    assert clip.valid.all()
    assert clip.visible[0].tolist() == [True, False] + [True] * 13
    assert clip.scale.tolist() == pytest.approx(joint_box_scale(clip.joints, clip.valid).tolist())
    assert clip.scale[0] == pytest.approx(0.6 * 59 * 2**0.5)


def test_jhmdb_errors(tmp_path):
    write_jhmdb(tmp_path, "catch/short", 4, 3)
    with pytest.raises(ValueError, match=r"catch/short should have 4 frames like its joints, got 3"):
        jhmdb.read(tmp_path, "catch/short")
    path = tmp_path / "JHMDB/joint_positions/catch/short/joint_positions.mat"
    scipy.io.savemat(path, {"pos_img": np.zeros((2, 13, 4))})
    with pytest.raises(ValueError, match=r"joint_positions\.mat should hold pos_img \(2, 15, T\), got \(2, 13, 4\)"):
        jhmdb.read(tmp_path, "catch/short")
    scipy.io.savemat(path, {"pos_world": np.zeros((2, 15, 4))})
    with pytest.raises(ValueError, match=r"joint_positions\.mat should hold the array pos_img, got 'pos_img'"):
        jhmdb.read(tmp_path, "catch/short")
    for content in (b"", b"MATLAB", path.read_bytes()[:150]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"joint_positions\.mat should hold the array pos_img"):
            jhmdb.read(tmp_path, "catch/short")
    (tmp_path / "JHMDB/splits").mkdir()
    with pytest.raises(FileNotFoundError, match=r"<action>_test_split3\.txt"):
        jhmdb.names(tmp_path, split=3)
    with pytest.raises(ValueError, match="part should be train or test, got val"):
        jhmdb.names(tmp_path, "val")
