"""torch.hub: models from a checkout of this project, in a process that knows nothing of it."""

from __future__ import annotations

import json
import subprocess
import sys

import torch

from prediction.api import ConditionalYOLO
from tests.conftest import ROOT

HUB = """
import json, sys, torch
root, weights, image, other = sys.argv[1:]
sys.path.insert(0, other)
import utils
sys.path.remove(other)
try:
    torch.hub.load(root, "sr_network", source="local")
except Exception as error:
    refused = str(error)
del sys.modules["utils"]
model = torch.hub.load(root, "conditional_yolo", source="local", weights=weights, device="cpu")
(result,) = model.predict(image, policy="budget=0.5", conf=0.1)
resolver = torch.hub.load(root, "sr_network", source="local", scale=2)
(sr,) = resolver.upscale(image)
print(json.dumps([result.boxes.data.tolist(), result.sr.shape, sr.shape, root in sys.path, refused]))
"""


def test_models_are_those_of_the_api_and_another_package_of_one_name_is_named(weights, good, tmp_path):
    (tmp_path / "other" / "utils").mkdir(parents=True)
    (tmp_path / "other" / "utils" / "__init__.py").touch()
    image = good / "odd.png"
    command = [sys.executable, "-c", HUB, str(ROOT), str(weights), str(image), str(tmp_path / "other")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    boxes, sr, upscaled, in_path, refused = json.loads(done.stdout.splitlines()[-1])
    (expected,) = ConditionalYOLO(weights, device="cpu").predict(image, "budget=0.5", conf=0.1)
    torch.testing.assert_close(torch.tensor(boxes), expected.boxes.data, atol=1e-3, rtol=1e-4)
    assert (sr, upscaled, in_path) == ([68, 92, 3], [34, 46, 3], False)
    assert "a package named utils of another project is loaded already" in refused
