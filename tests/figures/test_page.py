"""The page holds every token and number once, loads nothing, and escapes all text."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxtrace.figures import write_report
from jaxtrace.schema import QUADRANTS
from tests.figures.traces import row, trace

HOSTILE = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!--", "]]>", "\"'&amp;", "</title>")
ODD = ("\n", ".\n\n", "", "東京", "🦊", "\ufffd", "\u2028", " \t", "{{ 7 * 7 }}")


class Page(HTMLParser):
    """Tags, their attributes, and the text inside each kind of element."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.texts = [], [], {}
        self.feed(html)
        self.close()
        self.data = json.loads(self.texts["script"][0])
        self.names = [column["name"] for column in self.data["columns"]]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source"):
            self.open.append((tag, dict(attrs).get("class")))
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1][0]][-1] += data

    def handle_comment(self, data):
        raise AssertionError(f"the page has a comment: {data}")


def read(one, path):
    return Page(write_report(one, path / "page.html").read_text(encoding="utf-8"))


def test_page_holds_every_token_and_number_once(rng, tmp_path):
    groups = ("output", "dispersion", "lens")
    rows = [row(rng, pieces, groups=groups) for pieces in ([*ODD, *HOSTILE], ["one", " two"])]
    page = read(trace(rows), tmp_path)
    assert [one["pieces"] for one in page.data["rows"]] == [[*ODD, *HOSTILE], ["one", " two"]]
    for one, source in zip(page.data["rows"], rows, strict=True):
        assert one["tokens"] == source.metrics["token"].tolist()
        np.testing.assert_allclose(one["values"][page.names.index("entropy")], source.metrics["entropy"], rtol=1e-3)
        hdi = source.metrics["hdi"].mean(1)
        np.testing.assert_allclose(one["values"][page.names.index("hdi")], hdi, rtol=1e-3)
        np.testing.assert_allclose(one["lens"], source.metrics["lens_entropy"], rtol=1e-2)
    assert page.texts["p"].count("one two") == 1


def test_hostile_text_is_escaped(rng, tmp_path):
    text = "".join(HOSTILE)
    meta = {"category": text, "seen": text, "answer": text, text: [text, text]}
    one = trace(
        [row(rng, HOSTILE, prompt=text, meta=meta, stop=text, groups=("output",))], model=text, settings={text: text}
    )
    page = read(one, tmp_path)
    assert [attributes.get("type") for tag, attributes in page.tags if tag == "script"] == ["application/json", None]
    assert len([tag for tag, _ in page.tags if tag == "title"]) == 1
    assert page.texts["h1"] == [text]
    assert page.texts["p"].count(text) == 2
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert tag != "img" or attributes["src"].startswith("data:")


@pytest.fixture(scope="module")
def large_page(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = [row(rng, [" token"] * 64, layers=16, heads=8) for _ in range(50)]
    return write_report(trace(rows, layers=16, heads=8), tmp_path_factory.mktemp("big") / "page.html")


def test_page_loads_nothing(large_page):
    page = Page(large_page.read_text(encoding="utf-8"))
    links = [(name, value) for _, attributes in page.tags for name, value in attributes.items()]
    loads = [value for name, value in links if name in ("src", "srcset", "href", "data", "action", "poster")]
    assert len(loads) == 10
    assert all(value.startswith("data:image/png;base64,") for value in loads)
    assert not any(word in page.texts["style"][0] for word in ("url(", "@import"))
    assert not any(word in page.texts["script"][1] for word in ("fetch(", "import(", "XMLHttpRequest", "innerHTML"))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy


@pytest.mark.parametrize("groups", [(), ("output",), ("attention",), ("lens",), ("hidden",)])
def test_page_offers_the_colours_of_the_recorded_groups(rng, tmp_path, groups):
    page = read(trace([row(rng, ["a", "b"], groups=groups), row(rng, [], groups=groups, stop="")]), tmp_path)
    selectable = {"output": "entropy", "attention": "attention_entropy", "lens": "prediction_depth"}
    expected = {name for group, name in selectable.items() if group in groups}
    assert expected <= {scale["name"] for scale in page.data["scales"]}
    assert ("select" in page.texts) == bool(expected)
    assert page.data["rows"][1]["pieces"] == []


def test_page_without_prompts(tmp_path):
    assert read(trace([]), tmp_path).data["rows"] == []


def test_scored_text_is_coloured_after_its_first_token(rng, tmp_path):
    one = row(
        rng,
        [" is", " it", "?", ""],
        tokens=[1, 2, 3, -1],
        groups=("output",),
        text="".join(("What", " is", " it", "?")),
        stop="scored",
    )
    one.metrics["logprob"][-1] = np.nan
    page = read(trace([one], mode="score"), tmp_path)
    data = page.data["rows"][0]
    assert data["lead"] == ["What"]
    assert "".join(data["lead"] + data["pieces"]) == "What is it?"
    assert data["values"][page.names.index("surprisal")][-1] is None
    assert one.prompt.text not in page.texts["p"]


def test_group_table_has_means_over_prompts(rng, tmp_path):
    rows = [row(rng, ["a"] * 3, meta={"seen": seen}, groups=("output",)) for seen in ("never", "often", "never")]
    cells = [text.strip() for text in read(trace(rows), tmp_path).texts["td"]]
    first = np.mean([rows[0].metrics["entropy"][0], rows[2].metrics["entropy"][0]])
    mean = np.mean([rows[0].metrics["entropy"].mean(), rows[2].metrics["entropy"].mean()])
    assert cells[0] == "often"
    assert cells[4:] == ["never", "2", f"{first:.3f}", f"{mean:.3f}"]


def test_unpaired_surrogates_and_infinities_are_written(rng, tmp_path):
    one = row(rng, ["\ud800", "b"], groups=("output",))
    one.metrics["logprob"][0] = -np.inf
    page = read(trace([one]), tmp_path)
    assert page.data["rows"][0]["pieces"] == ["?", "b"]


def luminance(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_text_has_contrast_on_every_colour(tmp_path):
    style = read(trace([]), tmp_path).texts["style"][0]
    inks = re.findall(r"--ink: (#\w{6})", style)
    ramps = np.array(re.findall(r"--q\d: (#\w{6})", style)).reshape(2, 9)
    for ink, ramp in zip(inks, ramps, strict=True):
        pairs = [sorted([luminance(ink) + 0.05, luminance(colour) + 0.05]) for colour in ramp]
        assert min(high / low for low, high in pairs) > 4.5
        steps = np.diff([luminance(colour) for colour in ramp])
        assert (steps < 0).all() or (steps > 0).all()


def test_page_of_fifty_prompts_is_below_two_megabytes(large_page):
    assert large_page.stat().st_size < 2_000_000


def test_tokens_are_coloured_by_the_sampler_s_quadrant(rng, tmp_path):
    one = row(rng, ["a", "b", "c"], groups=("output",))
    with_quadrants = dataclasses.replace(one, metrics=one.metrics | {"quadrant": np.array([0, 4, -1], np.int32)})
    page = read(trace([with_quadrants]), tmp_path)
    assert page.data["rows"][0]["values"][page.names.index("quadrant")] == [0, 4, None]
    assert page.data["columns"][page.names.index("quadrant")]["names"] == list(QUADRANTS)
    (scale,) = [scale for scale in page.data["scales"] if "names" in scale]
    assert (scale["name"], scale["names"]) == ("quadrant", list(QUADRANTS))
    style = page.texts["style"][0]
    assert all(f".c{number} {{" in style and style.count(f"--c{number}:") == 2 for number in range(len(QUADRANTS)))
    assert "quadrant" not in [scale["name"] for scale in read(trace([one]), tmp_path).data["scales"]]
