"""Plans trips by train: a tool that knows the lines, and an answer that has a form."""

from pydantic import BaseModel, Field
from pydantic_ai import Agent, ModelRetry

LINES = {("Turin", "Milan"): 62, ("Milan", "Venice"): 147, ("Milan", "Zurich"): 197}
MINUTES = LINES | {(end, start): minutes for (start, end), minutes in LINES.items()}
STATIONS = sorted({station for line in MINUTES for station in line})


class Trip(BaseModel):
    """A plan."""

    stops: list[str]
    minutes: int = Field(description="On trains, in all")
    advice: str = Field(description="One sentence for the traveller")


planner = Agent(
    "openai:gpt-5-mini",
    output_type=Trip,
    description="Plans trips by train in northern Italy.",
    instructions="You plan trips by train. Look every line up; never guess how long a train takes.",
    # The model is looked up when it is needed: tests import this module without a key.
    defer_model_check=True,
)


@planner.tool_plain
def minutes(start: str, end: str) -> int:
    """How many minutes the train takes between two stations that have a direct line."""
    if (start, end) not in MINUTES:
        raise ModelRetry(f"No direct line from {start} to {end}; the stations: {STATIONS}")
    return MINUTES[start, end]
