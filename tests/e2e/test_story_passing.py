"""A tenant that comes and goes: what it was given is taken back in stages, and what it had goes with it.

It goes on beside the story, from where `passing` is first asked for, and before the count of rights that were used
(`test_story_surplus`), by its name: nothing else in the story takes away a quota, a volume or an old revision.
"""

from concurrent.futures import Future

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(7200)]

Steps = list[Future[None]]
"""In the order of the tests."""


def test_old_revisions_go_one_by_one_and_a_volume_that_none_needs_goes_with_them(passing: Steps) -> None:
    passing[0].result()


def test_a_tenants_own_account_reads_its_history(passing: Steps) -> None:
    passing[1].result()


def test_what_a_tenant_was_given_is_taken_back_when_it_is_given_less(passing: Steps) -> None:
    passing[2].result()


def test_a_gateway_is_made_and_goes_as_the_r1plustenant_says(passing: Steps) -> None:
    passing[3].result()


def test_an_r1plustenant_goes_after_all_that_it_gave_and_the_policies_stay(passing: Steps) -> None:
    passing[4].result()
