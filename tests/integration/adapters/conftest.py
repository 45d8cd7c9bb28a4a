"""The vendor of models that agents of other libraries talk to."""

from tests.vendor.fixture import vendor

__all__ = ["vendor"]
