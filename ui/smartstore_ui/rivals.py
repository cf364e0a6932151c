"""Models side by side on one set, as a table for the terminal and the report. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smartstore_ui import naming
from smartstore_workflows.comparing import against
from smartstore_workflows.results import Measured

SHOWN = {"gain": " ▲", "loss": " ▼", "unclear": ""}  # beside a figure: better or worse than the first model's


@dataclass(frozen=True, slots=True)
class Rivals:
    """One set as several models did on it, at least two; the others are held against the first."""

    sets: Sequence[Measured]

    @property
    def file(self) -> str:
        """Return the name of the set's file."""
        return self.sets[0].file

    @property
    def models(self) -> list[str]:
        """Return the names of the models."""
        return [measured.model for measured in self.sets]

    @property
    def n(self) -> int:
        """Return how many lines the set has."""
        return len(self.sets[0].judged)

    def rows(self) -> Iterator[list[str]]:
        """Yield for each metric its name, and its value for each model, ▲ or ▼ where it is surely another."""
        first = self.sets[0]
        verdicts = [against(first, measured) if measured is not first else {} for measured in self.sets]
        figures = [{**measured.metrics, **measured.answers} for measured in self.sets]
        for name in dict.fromkeys(name for found in figures for name in found):
            yield [
                naming.metric_name(name),
                *(
                    naming.figure(name, found.get(name)) + SHOWN[verdict.get(name, "unclear")]
                    for found, verdict in zip(figures, verdicts, strict=True)
                ),
            ]


def rivalries(sets: Sequence[Measured]) -> list[Rivals]:
    """Return the sets that several models were asked; the models of one set stand together."""
    models = len({measured.model for measured in sets})
    return [Rivals(sets[place : place + models]) for place in range(0, len(sets), models)] if models > 1 else []
