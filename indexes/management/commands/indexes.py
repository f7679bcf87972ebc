"""Fleet care on the command line: the doctor, and the capacity planner."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from indexes import capacity, doctor
from indexes.doctor import Finding, Severity
from indexes.errors import IndexesError
from indexes.limits import in_words
from indexes.models import IndexDefinition


class Command(BaseCommand):
    help = "Look after the indexes in Valkey: what is wrong with them, and what they need."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        look = verbs.add_parser(
            "doctor", help="Compare the engine with the builds; exits 1 when findings remain."
        )
        look.add_argument(
            "--repair", action="store_true", help="Mend what can be, asking each time."
        )
        look.add_argument("--yes", action="store_true", help="With --repair: do not ask.")
        look.add_argument(
            "--seconds",
            type=float,
            default=60,
            help="How long to count keys (default: %(default)s).",
        )
        look.add_argument(
            "--no-endpoints", action="store_true", help="Do not call the embedding endpoints."
        )
        plan = verbs.add_parser(
            "capacity", help="Tell the memory that an index needs; exits 1 when it does not fit."
        )
        plan.add_argument("slug", help="Slug of the index definition.")
        plan.add_argument(
            "--items", type=int, help="Number of items; without it the source is counted."
        )

    def handle(self, *, verb: str, **options: Any) -> None:
        if verb == "doctor":
            self._doctor(**options)
        else:
            self._capacity(options["slug"], options["items"])

    def _doctor(
        self, *, repair: bool, yes: bool, seconds: float, no_endpoints: bool, **options: Any
    ) -> None:
        if repair and not yes and not sys.stdin.isatty():
            raise CommandError("Nobody can be asked here: add --yes to repair without asking.")
        report = doctor.examine(seconds, endpoints=not no_endpoints)
        if report.error:
            raise CommandError(report.sentence())
        if report.facts is not None:
            memory = report.facts.memory
            of = f" of {in_words(memory.total)}" if memory.total else ""
            self.stdout.write(f"{report.facts}: {in_words(memory.used)}{of} used")
        for row in report.builds:
            size = "size unknown" if row.bytes is None else in_words(row.bytes)
            how = "" if row.measured or row.bytes is None else " (estimated)"
            self.stdout.write(
                f"  {row.build.label}: {row.build.get_status_display().lower()}, {row.items:,} items, {size}{how}"
            )
        left = 0
        for finding in report.findings:
            self._show(finding)
            left += not (repair and self._repair(finding, yes))
        self.stdout.write(report.sentence())
        if left:
            again = "" if repair else " Run again with --repair to mend what can be."
            raise CommandError(f"{left:,} remain.{again}")

    def _show(self, finding: Finding) -> None:
        style = self.style.ERROR if finding.severity == Severity.ERROR else self.style.WARNING
        self.stdout.write(style(f"{finding.severity}: {finding.what}"))
        self.stdout.write(f"  {finding.why}")
        self.stdout.write(
            f"  Repair: {finding.repair}" if finding.repair else f"  To do: {finding.advice}"
        )

    def _repair(self, finding: Finding, yes: bool) -> bool:
        """Mend one finding if it can be and the person agrees; tell whether it was."""
        if finding.kind not in doctor.REPAIRABLE:
            return False
        if not yes and input("  Do that? [y/N] ").strip().lower() not in ("y", "yes"):
            return False
        try:
            done = doctor.repair(finding.kind, finding.target, wait=True)
        except IndexesError as error:
            self.stdout.write(self.style.ERROR(f"  Not done: {error}"))
            return False
        self.stdout.write(self.style.SUCCESS(f"  {done}"))
        return True

    def _capacity(self, slug: str, items: int | None) -> None:
        if items is not None and items < 1:
            raise CommandError("--items takes a number of items from 1 on.")
        try:
            definition = IndexDefinition.objects.select_related(
                "endpoint", "source", "live_build"
            ).get(slug=slug)
        except IndexDefinition.DoesNotExist:
            known = ", ".join(IndexDefinition.objects.values_list("slug", flat=True)) or "none yet"
            raise CommandError(f'There is no index "{slug}". There are: {known}.') from None
        plan = capacity.plan(definition.to_spec(), items=items, definition=definition)
        one = plan.one
        self.stdout.write(f"{plan.items:,} items, {plan.items_from}, on {plan.engine}:")
        for name, size in (
            ("items", one.hashes),
            ("vectors", one.vectors),
            ("graph", one.graph),
            ("fields", one.fields),
        ):
            self.stdout.write(f"  {name:8} {in_words(size):>10}")
        self.stdout.write(f"  {'a build':8} {in_words(one.total):>10}")
        if not plan.sampled:
            self.stdout.write("The source cannot be read here: the size of its fields is assumed.")
        for row in plan.measured:
            self.stdout.write(
                f"{row.label} measured {in_words(row.measured)} for {row.items:,} items; "
                f"the estimate is {row.off_percent:+d} % of that."
            )
        if plan.fits is False or plan.both_fit is False:
            raise CommandError(plan.sentence())
        self.stdout.write(plan.sentence())
