"""Agents that ask a model with nothing but the standard library."""

from __future__ import annotations

import json
import os
import time
import urllib.request

from factorychain import Agent, RunContext


def _ask(url: str, key: str, text: str) -> str:
    asked = {"model": "m", "stream": True, "messages": [{"role": "user", "content": text}]}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(asked).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return str(answer.read().decode())


class AsksModel(Agent):
    """Asks the model, uses a service, says everything that came back, and ends as it is told."""

    name = "asks-model"

    def run(self, ctx: RunContext, text: str) -> str:
        url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
        service = ctx.credential("tracker")
        said = _ask(url, os.environ["OPENAI_API_KEY"], text)
        said += _ask(service.base_url, service.key, text)
        print("the model said", said)
        ctx.wait(ctx.say(said))
        ctx.wait(ctx.emit("environment", dict(os.environ)))
        if text == "wait":
            time.sleep(60)
        if text == "fail":
            raise RuntimeError(said)
        return said
