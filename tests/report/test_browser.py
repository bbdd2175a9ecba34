"""The page as a browser shows it; skipped where there is none."""

import shutil
import subprocess

import matplotlib.image
import numpy as np
import pytest

from milepost.footprint import PrefillCost
from milepost.report import study_trace
from milepost.report.page import Provenance, render_page
from milepost.simulator import Setting, nominal_footprint
from milepost.traces import open_trace

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DARK, LIGHT = 0, 1

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    settings = [
        Setting(policy=policy, capacity_kv_tokens=capacity, footprint=nominal_footprint(1536))
        for policy in ("learned", "tensorrt:start=512+1024,end=64+192,every=4096")
        for capacity in (20_000, 50_000)
    ]
    trace = open_trace("synthetic:chat,requests=60,seed=1")
    study = study_trace(trace, settings, cost=PrefillCost.tokens())
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(render_page([study], ["chat"], Provenance(command="milepost report", versions=[])))
    return path


@pytest.mark.parametrize(("scheme", "ground"), [(DARK, (23, 26, 33)), (LIGHT, (255, 255, 255))])
# A desktop and a phone.
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_its_window_in_light_and_dark(page, scheme, ground, width, tmp_path):
    shot = tmp_path / "shot.png"
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--blink-settings=preferredColorScheme={scheme}"]
    command += [f"--window-size={width},3000", f"--screenshot={shot}", page.as_uri()]
    try:
        subprocess.run(command, capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("the browser does not come up here")
    if not shot.exists():
        pytest.skip("the browser makes no screenshot here")
    picture = np.round(matplotlib.image.imread(shot)[..., :3] * 255).astype(int)
    assert picture.shape[1] == width
    for edge in (picture[:, :6], picture[:, -6:]):
        assert (np.abs(edge - ground) <= 2).all(), "nothing reaches into the margins"
    assert len(np.unique(picture[::5, ::5].reshape(-1, 3), axis=0)) > 30
