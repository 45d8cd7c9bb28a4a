"""The vendor of models that agents of other libraries talk to, and LangChain's connections to it."""

from tests.vendor.fixture import vendor
from tests.vendor.langchain_clients import langchain_clients

__all__ = ["langchain_clients", "vendor"]
