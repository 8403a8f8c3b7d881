"""Pays invoices through a bank that fails in every way, and pays each of them once.

One terminal is the bank. It pays late, answers 500 before or after it has paid, hangs up, dies::

    python -m examples.payouts.bank --seed 17 --port 8400 --keys ignored

Another one pays::

    export PERDURE_APP=examples.payouts:app PERDURE_STORE=payouts.db
    perdure run start payouts --key july --input '{"bank": "http://127.0.0.1:8400", "invoices":
        [{"id": "a", "cents": 1200}, {"id": "b", "cents": 3400}, {"id": "c", "cents": 5600}]}'

Each invoice is paid by a child run of its own, side by side with the others. This bank does not know
idempotency keys, so nothing is ever asked of it twice unless it is known that it did nothing. Sooner or later
an answer is missing: the child that waited for it stops and says so, and the batch waits for that child. Look
at the bank's ledger, say what happened, and both go on::

    perdure run list --in-doubt
    curl http://127.0.0.1:8400/payments
    perdure run resolve CHILD --effect KEY --did-not-happen --why 'not in the ledger'
    perdure run resolve CHILD --effect KEY --happened '{"json": {"receipt": 2}}' --why 'receipt 2 is theirs'
    perdure run resume RUN

A bank that honours keys (``--keys honoured``) is simply asked again under the same key, and nobody has to
look at anything. Which hosts do is said in ``PAYOUTS_KEYED_HOSTS``; nobody is taken to, unless it is named::

    export PAYOUTS_KEYED_HOSTS=127.0.0.1

RUN is the batch. Kill the paying process whenever you like, and go on with that same command, or have a
``perdure worker`` go on with whatever can. ``python3 dev.py faults --example payouts`` kills at every durable
write in turn, for many seeds.
"""

from __future__ import annotations

import os

from examples.payouts.operation import pay, payouts
from perdure.sdk import App
from perdure.wiring import http_transport

KEYED_HOSTS_VARIABLE = "PAYOUTS_KEYED_HOSTS"
"""Names the hosts that pay once under an idempotency key, with spaces between them."""


def app() -> App:
    """The operations, and a transport that knows which banks may be asked again."""
    keyed_hosts = os.environ.get(KEYED_HOSTS_VARIABLE, "").split()
    return App([payouts, pay], [http_transport(keyed_hosts=keyed_hosts)])
