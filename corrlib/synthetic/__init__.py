"""Procedural video with exact motion: sheets, solids and figures that move, turn, bend and hide one another.

`scene` draws a scene from a seed, textures and a `Content` (what scenes are made of); `track_clip`,
`flow_pair`, `mask_clip` and `joints` take samples of it; `Scene.at` answers everything else. Times are
in frames and need not be whole, so that frames may lie any number of frames apart.
"""

from .clips import flow_pair as flow_pair
from .clips import joints as joints
from .clips import mask_clip as mask_clip
from .clips import seen_points as seen_points
from .clips import track_clip as track_clip
from .content import HELD_OUT as HELD_OUT
from .content import LAYERS as LAYERS
from .content import Content as Content
from .content import read_contents as read_contents
from .content import scene as scene
from .scenes import Scene as Scene

TEXTURE_SIZE = 320
VERSION = 3  # of what is drawn; a benchmark of another version is another benchmark
