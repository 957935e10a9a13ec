"""``python -m tests.audit``: are there known vulnerabilities in what the locks pin?

Exit status 1 if there are, or if ``--required`` is given and not all was looked up; else 0.
pip-audit itself ends with 0 and "No known vulnerabilities found" where its service knew none of
the packages, so what it says of each is counted here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass

import msgspec

from tests.console import ROOT

LOCKS = ("requirements.lock", "requirements-extras.lock")


class _Fault(msgspec.Struct, frozen=True):
    id: str
    fix_versions: tuple[str, ...] = ()


class _Package(msgspec.Struct, frozen=True):
    name: str
    version: str = ""
    vulns: tuple[_Fault, ...] = ()
    skip_reason: str | None = None


class _Report(msgspec.Struct, frozen=True):
    dependencies: tuple[_Package, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit found: a line for each vulnerability, and what was not looked up, and why."""

    vulnerable: tuple[str, ...]
    audited: int
    unknown: tuple[str, ...]

    def status(self, *, required: bool) -> int:
        """The exit status; with ``required`` an audit must have been one."""
        return int(bool(self.vulnerable) or (required and (bool(self.unknown) or not self.audited)))

    def __str__(self) -> str:
        lines = [f"✗ {line}" for line in self.vulnerable]
        if self.unknown:
            lines.append(f"⚠ NOT AUDITED: {len(self.unknown)} packages. {self.unknown[0]}")
        if not self.vulnerable and self.audited:
            lines.append(f"✓ no known vulnerability in {self.audited} packages")
        return "\n".join(lines)


def verdict(report: bytes, said: str) -> Verdict:
    """What pip-audit's JSON says; if there is none, what it ``said`` is the reason."""
    try:
        packages = msgspec.json.decode(report, type=_Report).dependencies
    except msgspec.DecodeError:
        lines = said.strip().splitlines() or ["pip-audit said nothing"]
        return Verdict((), 0, (lines[-1][:300],))
    return Verdict(
        tuple(
            f"{package.name} {package.version}: {fault.id}; "
            f"mended in {', '.join(fault.fix_versions) or 'no version yet'}"
            for package in packages
            for fault in package.vulns
        ),
        sum(package.skip_reason is None for package in packages),
        tuple(package.skip_reason for package in packages if package.skip_reason is not None),
    )


def main() -> int:
    """Audit and print the verdict."""
    parser = argparse.ArgumentParser(prog="python -m tests.audit", description=__doc__)
    parser.add_argument("--required", action="store_true", help="fail if it cannot be known")
    given = parser.parse_args()
    done = subprocess.run(
        [
            sys.executable, "-m", "pip_audit", "--format=json", "--progress-spinner=off",
            "--disable-pip", *(f"--requirement={ROOT / name}" for name in LOCKS),
        ],
        capture_output=True,
        check=False,
    )  # fmt: skip
    found = verdict(done.stdout, done.stderr.decode(errors="replace"))
    print(found)
    return found.status(required=given.required)


if __name__ == "__main__":
    sys.exit(main())
