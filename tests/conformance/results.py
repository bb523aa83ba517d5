"""What a case may come to, and the line of all."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Result:
    """One case. With a `reason` it is not applicable; with a `problem` it has failed."""

    case: str
    problem: str = ""
    reason: str = ""


@dataclass(slots=True)
class Tally:
    """All results so far, printed as they come."""

    passed: int = 0
    parts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Part, with its program's version -> its counts."""
    failures: list[str] = field(default_factory=list)
    not_applicable: dict[str, str] = field(default_factory=dict)

    def add(self, part: str, results: Iterable[Result]) -> None:
        """Count a part's results and print its line, and a line for each failure."""
        passed = failed = absent = 0
        for result in results:
            name = f"{part}: {result.case}"
            if result.problem:
                failed += 1
                self.failures.append(name)
                print(f"  FAILED {name}: {result.problem[:600]}", flush=True)
            elif result.reason:
                absent += 1
                self.not_applicable[name] = result.reason
            else:
                passed += 1
        self.passed += passed
        self.parts[part] = {"passed": passed, "failed": failed, "not_applicable": absent}
        print(f"  {part}: {passed} passed, {failed} failed, {absent} not applicable", flush=True)

    def encode(self, **more: object) -> str:
        """Return the JSON line."""
        return json.dumps(
            {
                "passed": self.passed,
                "failed": len(self.failures),
                "failures": self.failures,
                "parts": self.parts,
                "not_applicable": self.not_applicable,
                **more,
            }
        )
