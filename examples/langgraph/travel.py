"""A travel desk in LangGraph: a model with two tools, and a booking that the traveller confirms.

Nothing in here is factorychain's: this is a graph as it would run anywhere.
"""

from __future__ import annotations

from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import interrupt

MODEL = "gpt-5-mini"
DESK = SystemMessage("You are a travel desk. Look trains up before you book one.")
TIMETABLE = {
    ("milan", "turin"): ["R 2032, 08:15", "FR 9512, 08:45", "R 2034, 09:15"],
    ("turin", "milan"): ["R 2029, 17:54", "FR 9563, 18:20"],
}


@tool
def trains(origin: str, destination: str) -> list[str]:
    """Trains of today between two cities."""
    get_stream_writer()({"looking": f"{origin} to {destination}"})
    return TIMETABLE.get((origin.lower(), destination.lower()), [])


@tool
def book(train: str) -> str:
    """Book a seat on a train."""
    answer = interrupt(f"Shall I book a seat on {train}?")
    return f"booked: {train}" if str(answer).lower() in ("yes", "true") else "not booked"


tools = [trains, book]
# Where the model is, and whose key pays for it, stands in OPENAI_BASE_URL and OPENAI_API_KEY.
model = ChatOpenAI(model=MODEL).bind_tools(tools)


async def desk(state: MessagesState) -> dict[str, list[AIMessage]]:
    """Ask the model what comes next."""
    return {"messages": [await model.ainvoke([DESK, *state["messages"]])]}


builder = StateGraph(MessagesState)
builder.add_node("desk", desk, metadata={"thinking": ""})
builder.add_node("tools", ToolNode(tools))
builder.add_edge(START, "desk")
builder.add_conditional_edges("desk", tools_condition)
builder.add_edge("tools", "desk")
graph = builder.compile()
