"""One of two pods goes bad: it is taken out of traffic, and deleted when it has been looked at.

It happens to `lite`, beside the story, after its prober has hung; and before the count of rights that were used
(`test_story_surplus`), by its name.
"""

import pytest

from e2e.lite_story import LiteStory

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]


def test_a_pod_that_is_bad_alone_leaves_traffic_and_is_deleted_when_its_time_is_over(lite_story: LiteStory) -> None:
    lite_story.quarantined.result()
