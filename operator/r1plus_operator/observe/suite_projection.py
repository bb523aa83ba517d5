"""Golden suites as the cache stores them: read, checked, and their signature verified."""

from r1plus_contract.monitor.settings import SUITE_FILE
from r1plus_contract.suites.suite import SuiteError
from r1plus_contract.suites.suite_baseline import find_reference_result
from r1plus_contract.suites.suite_check import check
from r1plus_contract.suites.suite_files import SuiteFiles
from r1plus_operator.observe.projections import CachedObject, build_cached_object
from r1plus_operator.observe.suite_signature import find_signer
from r1plus_operator.plan.observation import Json, SuiteSource

MAX_PROBLEMS, MAX_PROBLEM_CHARACTERS = 5, 400
"""Problems of a suite that a condition tells, and how much of each."""


def project_suite_version(obj: Json) -> CachedObject:
    """Return the version of a tenant's own golden suite, without its body."""
    return build_cached_object(obj, obj["metadata"]["resourceVersion"])


def read_suite(obj: Json) -> SuiteSource:
    """Read a tenant's own golden suite from its ConfigMap."""
    return read_suite_source(obj["metadata"]["name"], SuiteFiles.of(obj.get("data") or {}))


def read_suite_source(name: str, files: SuiteFiles) -> SuiteSource:
    """Read and check a suite and verify its signature; the result says why a suite cannot be used."""
    result = check(files)
    problems = [*result.problems]
    signed_by = ""
    try:
        signed_by = find_signer(files) if result.suite else ""
    except SuiteError as error:
        problems.append(str(error))
    if result.suite and result.suite.header.name != name:
        # Otherwise a ConfigMap could be replaced by another signed suite that is easier.
        mismatch = f"{SUITE_FILE}: name: {result.suite.header.name:.80} is not {name}"
        problems.append(f"{mismatch}; a suite must have the name of its ConfigMap or folder")
    if problems or result.suite is None:
        return SuiteSource(name, "", "", None, f"{name}: {_join_problems(problems)}")
    return SuiteSource(
        name,
        files.header,
        files.items,
        result.suite,
        reference_text=files.reference,
        digest=files.digest(),
        signer=signed_by,
        reference_result=find_reference_result(files.baseline, result.suite.header) if files.baseline else None,
    )


def _join_problems(problems: list[str]) -> str:
    """Join the first problems, since a condition is short."""
    more = len(problems) - MAX_PROBLEMS
    rest = f"; and {more} more: `r1plus suite verify FOLDER` lists all" if more > 0 else ""
    return "; ".join(problem[:MAX_PROBLEM_CHARACTERS] for problem in problems[:MAX_PROBLEMS]) + rest
