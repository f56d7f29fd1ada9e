"""Write a table of the study as JSON, as Markdown and as an HTML page.

The JSON file also holds the settings and the environment, and a description of the data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deepdefense.app.run_folder import RunFolder
from deepdefense.app.study.views import format_markdown, format_table
from deepdefense.evaluation.provenance import to_json

__all__ = ["StudyReport", "write_study"]

STUDY_SCHEMA = "deepdefense.reproduce/1"


@dataclass(frozen=True)
class StudyReport:
    """One table of the study. The keys of `data` and of `curves` are names of experiments."""

    table: str
    command: str
    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    data: Mapping[str, Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]
    curves: Mapping[str, Mapping[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return the content of TABLE.json as a dict."""
        content: dict[str, Any] = to_json({"schema": STUDY_SCHEMA, **asdict(self)})
        return content


def write_study(run: RunFolder, report: StudyReport) -> None:
    """Write TABLE.html, TABLE.md and TABLE.json to the folder of the study.

    TABLE.json is written last, so it exists only if the other two files do.
    """
    from deepdefense.app.pages import StudyPage, render_study

    content, table = report.as_dict(), report.table
    headings, lines = format_table(table, content["rows"])
    page = StudyPage(
        table=table,
        command=report.command,
        headings=headings,
        lines=lines,
        curves=content["curves"],
        settings=content["settings"],
        environment=content["environment"],
        data=content["data"],
    )
    run.write(f"{table}.html", render_study(page))
    run.write(f"{table}.md", f"`{report.command}`\n\n{format_markdown(table, content['rows'])}")
    run.write(f"{table}.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
