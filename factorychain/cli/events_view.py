"""How events look in a terminal."""

from __future__ import annotations

import json

from rich.text import Text

from factorychain.client import Event, Json

_LIMIT = 160
_ENDING_STYLES = {
    "agent_completed": "bold green",
    "agent_failed": "bold red",
    "agent_cancelled": "bold yellow",
}


def event_line(event: Event) -> Text | None:
    """One line for an event; None for pieces of a text, which are printed as they come."""
    line = _shown(event)
    if line is not None and event.path:
        line.append(f"  in {' › '.join(event.path)}", "dim")
    return line


def _shown(event: Event) -> Text | None:
    data = event.data
    match event.type:
        case "message_delta" | "thinking_delta":
            return None
        case "agent_started":
            again = f"  attempt {data['attempt']}" if begins_again(event) else ""
            text = f"{data['agent']}  run {event.run}  thread {event.thread}{again}"
            return _line("again" if again else "started", text, "cyan")
        case "run_queued":
            return _line("queued", f"position {data['position']}  run {event.run}", "yellow")
        case "agent_thinking":
            return _line("thinking", event.text, "dim")
        case "tool_executing":
            return _line("tool", f"{data['tool']} {short(data.get('arguments'))}", "blue")
        case "tool_completed":
            return _tool_completed(event)
        case "input_requested":
            return None  # asked by whoever shows the events
        case "input_received":
            closed = data.get("closed")
            return _line(
                "answer", f"none: {closed}" if closed else short(data.get("value")), "magenta"
            )
        case "agent_completed" | "agent_failed" | "agent_cancelled":
            return _ending(event)
        case _:
            return _line(event.type, short(data), "dim")


def begins_again(event: Event) -> bool:
    """Whether the run is started once more: what it has said so far does not count."""
    attempt = event.data.get("attempt")
    return event.type == "agent_started" and isinstance(attempt, int) and attempt > 1


def short(value: Json, limit: int = _LIMIT) -> str:
    """A value as compact JSON, cut to `limit` characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"


def _tool_completed(event: Event) -> Text:
    data = event.data
    if data["ok"]:
        outcome = short(data.get("result"))
    else:
        error = data.get("error")
        outcome = f"failed: {error.get('message')}" if isinstance(error, dict) else "failed"
    style = "blue" if data["ok"] else "red"
    return _line("tool", f"{data['tool']} → {outcome}  ({data['duration_ms']} ms)", style)


def _ending(event: Event) -> Text:
    data, style = event.data, _ENDING_STYLES[event.type]
    if event.type == "agent_completed":
        waits = "waits for answers, " if event.questions else ""
        return _line("completed", f"{waits}in {data['duration_ms']} ms", style)
    what = event.type.removeprefix("agent_")
    return _line(what, " ".join(str(data[k]) for k in ("reason", "message") if data.get(k)), style)


def _line(label: str, text: str, style: str) -> Text:
    return Text.assemble((f"{label:>10}  ", style), text)
