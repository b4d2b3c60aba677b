"""Pixel-wise video correspondence: which pixel is this pixel?

import corrlib
model = corrlib.load_pretrained()
video = corrlib.read_video("clip.mp4")
tracks, visible, confidence = corrlib.track_points(model, video, [[0, 120.5, 64.0]])
"""

from .checkpoints import load_pretrained as load_pretrained
from .checkpoints import save as save_checkpoint
from .coords import Lattice as Lattice
from .dense import match_frames as match_frames
from .encoder import Features as Features
from .encoder import PixelEncoder as PixelEncoder
from .explorer import explore as explore
from .frames import open_video as open_video
from .frames import read_frame as read_frame
from .frames import read_video as read_video
from .frames import write_video as write_video
from .propagation import propagate_joints as propagate_joints
from .propagation import propagate_masks as propagate_masks
from .samples import PointTracks as PointTracks
from .tracking import OnlineTracker as OnlineTracker
from .tracking import TrackerConfig as TrackerConfig
from .tracking import track_points as track_points
from .training import TrainConfig as TrainConfig
from .training import train as train
