"""models/ultralytics_offline.py: importing Ultralytics changes nothing for the rest of the program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib

ROOT = Path(__file__).resolve().parents[2]


def test_import_leaves_threads_and_environment_alone(tmp_path):
    code = (
        "import os, torch, cv2\n"
        "from PIL import Image\n"
        "opened, saved = Image.open, torch.save\n"
        "torch.set_num_threads(2); cv2.setNumThreads(2)\n"
        "import models.detector_yolo as d\n"
        "from ultralytics.utils import SETTINGS, USER_CONFIG_DIR\n"
        "print([torch.get_num_threads(), cv2.getNumThreads(), os.environ.get('OMP_NUM_THREADS'),"
        " SETTINGS['sync'], str(USER_CONFIG_DIR), Image.open is opened, torch.save is saved])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "MPLCONFIGDIR": matplotlib.get_cachedir()}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(
        [2, 2, None, False, str(tmp_path / "conditional_sr_yolo" / "Ultralytics"), True, True]
    )
    assert (tmp_path / "conditional_sr_yolo" / "Ultralytics" / "Arial.ttf").is_file()
