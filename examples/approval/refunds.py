"""A refund desk: it asks for what it is not told, and pays nothing that its user has not approved."""

from factorychain import Agent, AgentError, RunContext, ToolError, tool

ORDERS = {"1001": 12.5, "1002": 80.0}


class Refunds(Agent):
    """Refunds orders: "refund 1001"."""

    name = "refunds"

    @tool
    async def look_up(self, order: str) -> float:
        """What was paid for an order."""
        if order not in ORDERS:
            raise ToolError(f"There is no order {order}")
        return ORDERS[order]

    @tool(approval="Pay this refund?")
    async def pay(self, order: str, amount: float, reason: str) -> str:
        """Pay money back."""
        return f"Refunded {amount:.2f} for order {order} ({reason})"

    async def run(self, ctx: RunContext, text: str) -> str:
        order = text.removeprefix("refund").strip()
        try:
            amount = await self.look_up(order)
        except ToolError as error:
            raise AgentError(error.message) from error
        reason = await ctx.ask(
            f"Why is order {order} given back?",
            schema={"enum": ["broken", "late", "unwanted"]},
        )
        try:
            return await self.pay(order, amount, str(reason))
        except ToolError as error:  # refused, or nobody answered
            return f"Nothing was paid: {error.message}"
