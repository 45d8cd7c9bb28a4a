"""An agent made with the libraries that agents are often made with."""

from __future__ import annotations

import sys
from typing import TypedDict

import numpy as np
import pydantic_ai
from langgraph.graph import END, START, StateGraph
from pydantic_ai.models.test import TestModel

from factorychain import Agent, RunContext, tool


class State(TypedDict):
    """What the graph hands on."""

    words: list[str]


def split(state: State) -> State:
    return {"words": state["words"][0].split()}


class Libraries(Agent):
    """Uses them all in one run."""

    name = "libraries"

    @tool
    def multiply(self, size: int) -> float:
        """Multiplies two matrices, which OpenBLAS would do in threads."""
        return float((np.ones((size, size)) @ np.ones((size, size))).sum())

    async def run(self, ctx: RunContext, text: str) -> dict[str, object]:
        graph = StateGraph(State)
        graph.add_node("split", split)
        graph.add_edge(START, "split")
        graph.add_edge("split", END)
        found = await graph.compile().ainvoke({"words": [text]})
        answered = await pydantic_ai.Agent(TestModel(custom_output_text="yes")).run(text)
        return {
            "words": found["words"],
            "answer": answered.output,
            "sum": await ctx.call(self.multiply, 300),
            "random": np.random.random(),
            "grpc": "grpc" in sys.modules,
        }
