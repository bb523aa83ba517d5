"""The values and images of docs/building-images.md, and what docs/quickstart.md says is kept, go with the chart."""

import json
import re

import yaml

from support.chart import ROOT, Render

PAGE = (ROOT / "docs" / "building-images.md").read_text()
QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text()
VALUES = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[0])


def test_the_values_are_accepted_and_the_chart_names_the_images_that_are_loaded(render: Render) -> None:
    loaded = re.findall(r"[\w-]+:0\.1\.0", PAGE.partition("\nkind load ")[2].partition("```")[0])
    rendered = json.dumps(render(VALUES))

    assert len(loaded) == 7
    assert [image for image in loaded if image not in rendered] == []


def test_the_page_names_what_helm_keeps_after_an_uninstall(render: Render) -> None:
    policy = "helm.sh/resource-policy"
    kept = {one["metadata"]["name"] for one in render(VALUES) if one["metadata"].get("annotations", {}).get(policy)}

    assert len(kept) > 1
    assert {name for name in kept if name not in QUICKSTART.partition("## 6. Remove it")[2]} == set()
