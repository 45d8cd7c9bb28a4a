"""The agent `assistant`: talks with a language model, which may use tools. Made to be subclassed."""

from factorychain.builtin.assistant.agent import Assistant, providers
from factorychain.builtin.assistant.documents import Documents
from factorychain.builtin.assistant.language_model import LanguageModel

__all__ = ["Assistant", "Documents", "LanguageModel", "providers"]
