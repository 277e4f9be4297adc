"""The HTML page of poses: the content of the file, and its behavior in a browser."""

import base64
import html
import html.parser
import json
import re
import shutil
import subprocess
import tracemalloc

import cv2
import numpy as np
import pytest
from found_people import found

from rmpe_jax.errors import UserError
from rmpe_jax.inference.poses import Poses
from rmpe_jax.predict.formats import ImagePoses
from rmpe_jax.predict.report import Report
from rmpe_jax.skeletons import COCO, UNION

GRAY = np.full((480, 640, 3), 128, np.uint8)
NASTY = """<script>document.title = "hacked"</script>&"'.jpg"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report.html"


def with_scores(name, *scores):
    result = found(name, len(scores))
    poses = result.poses._replace(scores=np.array(scores, np.float32))
    return result._replace(poses=poses)


class Elements(html.parser.HTMLParser):
    """The elements that are open at the end, and every start tag's attributes."""

    VOID = frozenset(["meta", "img", "input", "rect", "path", "circle"])

    def __init__(self, text):
        super().__init__()
        self.open, self.tags = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag, kind=None):
        return [a for t, a in self.tags if t == tag and kind in (None, a.get("class"))]


def test_the_page_is_valid_after_each_image(path):
    """Only elements that need no end tag are open."""
    with Report(path, COCO) as report:
        for count in range(4):
            page = Elements(path.read_text())
            assert page.open == ["html", "body"]
            assert len(page.all("article")) == count
            report.add(GRAY, found(f"{count}.jpg", count))


def test_nothing_is_loaded_from_the_network(path):
    with Report(path, COCO) as report:
        report.add(GRAY, found())
    text = path.read_text()
    sources = [a[key] for _, a in Elements(text).tags for key in ("src", "href") if key in a]
    assert [source[:23] for source in sources] == ["data:image/jpeg;base64,"]
    assert not re.search(r"https?:|//\w|url\(|@import|fetch\(|\bimport\b", text.split("base64,")[0])
    assert "default-src 'none'" in text


def test_people_are_in_pixels_of_their_image(path):
    result = found(num_people=2)
    with Report(path, COCO, threshold=0.0) as report:
        report.add(GRAY, result)
    page = Elements(path.read_text())
    assert page.all("svg")[0]["viewbox"] == "-0.5 -0.5 640 480"
    assert len(page.all("g", "person")) == 2
    centers = [(float(a["cx"]), float(a["cy"])) for a in page.all("circle")]
    largest = np.prod(result.poses.bboxes[:, 2:] - result.poses.bboxes[:, :2], -1).argsort()
    expected = result.poses.keypoints[largest[::-1]].reshape(-1, 2)
    np.testing.assert_allclose(centers, expected, atol=0.051)
    boxes = [[float(a[k]) for k in ("x", "y", "width", "height")] for a in page.all("rect")]
    x1, y1, x2, y2 = result.poses.bboxes[largest[-1]]
    # Boxes refer to pixel edges, the SVG to pixel centers.
    np.testing.assert_allclose(boxes[0], [x1 - 0.5, y1 - 0.5, x2 - x1, y2 - y1], atol=0.11)
    # For each person one dark path, and a path for each limb.
    assert len(page.all("path")) == 2 * (1 + len(COCO.limbs))


def test_joints_with_low_scores_are_listed_but_not_drawn(path):
    result = found(num_people=1)
    result.poses.keypoint_scores[:] = 0.9
    result.poses.keypoint_scores[0, COCO.index("left_wrist")] = 0.1
    result.poses.keypoints[0, COCO.index("nose")] = np.nan
    with Report(path, COCO, threshold=0.2) as report:
        report.add(GRAY, result)
    page = Elements(path.read_text())
    (person,) = page.all("g", "person")
    scores = [float(score) for score in person["data-joints"].split()]
    assert scores == [0, *[0.9] * 8, 0.1, *[0.9] * 7]
    drawn = {int(a["data-joint"]) for a in page.all("circle")}
    assert drawn == set(range(17)) - {COCO.index("left_wrist"), COCO.index("nose")}
    assert len(page.all("path")) == 1 + len(COCO.limbs) - 3
    assert "nan" not in path.read_text().split("<article>")[1].split("base64,")[1].split('">')[1]


@pytest.mark.parametrize(
    ("size", "reduced"), [((480, 640), (60, 80)), ((640, 480), (80, 60)), ((40, 30), (40, 30))]
)
def test_large_images_are_reduced(path, size, reduced):
    image = np.zeros((*size, 3), np.uint8)
    image[:, : size[1] // 2] = (250, 20, 10)
    with Report(path, COCO, max_side=80) as report:
        report.add(image, ImagePoses("a.jpg", size, Poses.none(17)))
    (attributes,) = Elements(path.read_text()).all("img")
    encoded = base64.b64decode(attributes["src"].partition(",")[2])
    shown = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert shown.shape[:2] == reduced
    np.testing.assert_allclose(shown[5, 5], (250, 20, 10), atol=12)


def test_memory_does_not_grow_with_the_images(path):
    result = found(num_people=5)
    with Report(path, COCO) as report:
        tracemalloc.start()
        for _ in range(10):  # until caches, of the type checks among others, are full
            report.add(GRAY, result)
        before, begin = tracemalloc.get_traced_memory()[0], path.stat().st_size
        for _ in range(10):
            report.add(GRAY, result)
        after, end = tracemalloc.get_traced_memory()[0], path.stat().st_size
        tracemalloc.stop()
    assert end - begin > 100_000
    assert after - before < 10_000


def test_a_page_is_resumed(path):
    """An incomplete article at the end, as after a kill, is cut off."""
    with Report(path, COCO) as report:
        for name in ("a.jpg", "<b>.jpg", "c.jpg"):
            report.add(GRAY, with_scores(name, 0.5))
    page = path.read_bytes()
    path.write_bytes(page[: page.rindex(b"</article>")])
    with Report(path, COCO, resume=True) as report:
        assert [report.has(name) for name in ("a.jpg", "<b>.jpg", "c.jpg")] == [True, True, False]
        report.add(GRAY, with_scores("c.jpg", 0.5))
    assert path.read_bytes() == page


def test_names_that_are_not_text(path):
    with Report(path, COCO, title="a < b") as report:
        report.add(GRAY, found("\udce9.jpg"))
    text = path.read_text(encoding="utf-8")
    assert r"<h2>\udce9.jpg</h2>" in text
    assert "<title>a &lt; b</title>" in text


def test_results_that_are_not_finite_raise(path):
    with Report(path, COCO) as report:
        report.add(GRAY, found("a.jpg"))
        with pytest.raises(UserError, match=r"lacks b\.jpg: a result is not a finite number"):
            report.add(GRAY, with_scores("b.jpg", 0.5, np.nan))
        report.add(GRAY, found("c.jpg"))
    assert len(Elements(path.read_text()).all("article")) == 2


def test_a_path_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Report(tmp_path / "file/report.html", COCO)


@pytest.fixture(scope="session")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found_ones = [path for path in map(shutil.which, names) if path]
    if not found_ones:
        pytest.skip("no Chromium or Chrome on this machine")
    return found_ones[0]


# Operates the page after it is set up, and writes what it saw as JSON into the body.
DRIVER = """
<script>
addEventListener("DOMContentLoaded", () => {
  const seen = {}, byId = id => document.getElementById(id);
  const names = () => [...document.querySelectorAll("h2")].map(h2 => h2.textContent);
  const set = (id, value, event) => {
    byId(id).value = value;
    byId(id).dispatchEvent(new Event("input"));
    byId(id).dispatchEvent(new Event("change"));
  };
  const count = selector => [...document.querySelectorAll(selector)].filter(
    each => each.getClientRects().length).length;
  seen.title = document.title;
  seen.names = names();
  seen.counts = byId("counts").textContent;
  seen.orders = {};
  for (const order of ["name", "people", "best", "worst", "given"]) {
    set("order", order);
    seen.orders[order] = names();
  }
  seen.most = byId("least").max;
  const parts = () => ["path", "circle", ".person"].map(count);
  seen.parts = parts();
  byId("limbs").click();
  seen.without_limbs = parts();
  byId("joints").click();
  seen.without_joints = parts();
  const stroke = () => getComputedStyle(document.querySelector(".box")).stroke;
  seen.box = [stroke(), (byId("boxes").click(), stroke())];
  const person = document.querySelectorAll(".person")[2];
  const panel = () => getComputedStyle(byId("scores")).display + " " + byId("scores").innerText;
  const send = kind => person.dispatchEvent(new PointerEvent(kind));
  seen.panels = [panel(), (send("pointerenter"), panel()), (send("pointerleave"), panel())];
  set("least", 0.5);
  seen.filtered = [byId("counts").textContent, count(".person"), byId("least-value").value,
    [...document.querySelectorAll("article p")].map(p => p.textContent.replace("⤢", "").trim())];
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  document.body.append(result);
});
</script>
"""


def open_in(browser, path, folder):
    """What the driver saw of the page."""
    driven = path.with_name("driven.html")
    driven.write_text(path.read_text().replace("</head>", DRIVER + "</head>", 1))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={folder}", "--dump-dom", driven.as_uri()]
    dom = subprocess.run(command, capture_output=True, timeout=120).stdout.decode()
    return json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', dom, re.DOTALL)[1]))


def test_in_a_browser(browser, path, tmp_path):
    """Names, sorting, filters, and the scores of the person that is pointed at.

    The file is cut off within an image, as by a kill.
    """
    with Report(path, COCO, title="Found", threshold=0.0) as report:
        report.add(GRAY, with_scores(NASTY, 0.9, 0.4))
        report.add(GRAY, with_scores("b10.jpg", 0.7))
        report.add(GRAY, with_scores("b9.jpg", 0.6, 0.5, 0.2))
        report.add(GRAY, with_scores("none.jpg"))
        report.add(GRAY, with_scores("cut.jpg", 0.99))
    text = path.read_text()
    path.write_text(text[: text.rindex("base64,") + 100])
    seen = open_in(browser, path, tmp_path / "profile")
    assert seen["title"] == "Found"
    assert seen["names"] == seen["orders"]["given"] == [NASTY, "b10.jpg", "b9.jpg", "none.jpg"]
    assert seen["counts"] == "4 images · 6 people · 1 image without people"
    assert seen["orders"]["name"] == [NASTY, "b9.jpg", "b10.jpg", "none.jpg"]
    assert seen["orders"]["people"] == ["b9.jpg", NASTY, "b10.jpg", "none.jpg"]
    assert seen["orders"]["best"] == [NASTY, "b10.jpg", "b9.jpg", "none.jpg"]
    assert seen["orders"]["worst"] == ["b9.jpg", NASTY, "b10.jpg", "none.jpg"]
    assert seen["most"] == "0.9"
    limbs = 6 * (1 + len(COCO.limbs))
    assert seen["parts"] == [limbs, 6 * 17, 6]
    assert seen["without_limbs"] == [0, 6 * 17, 6]
    assert seen["without_joints"] == [0, 0, 6]
    assert seen["box"] == ["none", "rgb(140, 232, 130)"]
    panels = [" ".join(panel.split()) for panel in seen["panels"]]
    assert [panel.split()[0] for panel in panels] == ["none", "block", "none"]
    scores = found("b10.jpg", 1).poses.keypoint_scores[0]
    assert panels[1].startswith("block 0.70 score · box")
    for joint, score in zip(COCO.joints, scores, strict=True):
        (shown,) = re.findall(rf"{joint.replace('_', ' ')} (\d\.\d\d)", panels[1])
        assert float(shown) == pytest.approx(score, abs=0.0051)
    assert seen["filtered"] == [
        "4 images · 4 of 6 people · 1 image without people",
        4,
        "0.50",
        ["1 of 2 people", "1 person", "2 of 3 people", "0 people"],
    ]


def test_other_skeletons(path):
    with Report(path, UNION) as report:
        report.add(GRAY, found(num_keypoints=UNION.num_keypoints))
    joints = re.search(r"JOINTS = (\[.*?\]), SIDES", path.read_text())[1]
    assert json.loads(joints) == [joint.replace("_", " ") for joint in UNION.joints]
