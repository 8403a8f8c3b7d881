"""Approves expenses: two people say yes, a manager decides where nobody answers, and the money is paid once.

``perdure run start expense --app examples.approval:app --input @chair.json`` starts one, where the file holds
``{"spender": "eve", "manager": "mia", "cents": 12000, "purpose": "a chair"}``. While a worker runs,
``perdure run signal RUN approval true --by ann`` approves it.
"""

from __future__ import annotations

from examples.approval.operation import expense
from examples.approval.outside import bank, notices
from perdure import App


def app() -> App:
    """The operation, with a bank and notices that only pretend."""
    return App([expense], transports=[bank, notices])
